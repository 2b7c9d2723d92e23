"""From the config's words to the objects they name: objective and balancer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from distilvl.objectives import LOSSES, NO_IMAGE, MultiscaleObjective
from distilvl.objectives.balancers import BALANCERS, Balancer
from distilvl.objectives.config import BalancerConfig, ObjectiveConfig
from distilvl.objectives.loss import LearnedTemperature
from distilvl.objectives.queue import QueueStart
from distilvl.training.materials import Materials
from distilvl.training.stream import StreamSource


def build_objective(config: ObjectiveConfig, dim: int) -> MultiscaleObjective:
    """The losses of `config`, for embeddings of dimension `dim`."""
    losses = [LOSSES[name].build(config.settings(name)) for name in config.losses]
    for loss in losses:
        if config.learn_temperatures and loss.learns_temperature:
            fixed: Any = loss.temperature
            loss.temperature = LearnedTemperature(fixed)
    return MultiscaleObjective(dim, losses, queue_size=config.queues.queue, dims=config.dims)


def build_balancer(config: BalancerConfig) -> Balancer:
    """The balancer of `config`."""
    kind = BALANCERS[config.name]
    return kind(**{name: getattr(config, name) for name in kind.settings.model_fields})


def fill_queues(objective: MultiscaleObjective, start: QueueStart, train: Materials | StreamSource, seed: int) -> None:
    """What both queues hold before the first step.

    `stored`: randomly drawn teacher features, so that CD has all its negatives from the start; every one is stored
    already, so they cost nothing. `empty`: nothing; CD is 0 at the first step, and the balancer's scale for it has
    no meaning. `random`: random unit vectors that belong to no image, as in the published code.
    """
    if isinstance(train, StreamSource):
        _fill_from_stream(objective, start, train, seed)
        return
    if train.teacher is None or start == "empty":
        return
    random = np.random.default_rng((seed, len(train.pixels)))
    if start == "random":
        _fill_at_random(objective, random)
        return
    size = len(objective.image_queue.ids)
    images = random.permutation(len(train.teacher.images))[:size]
    texts = random.permutation(len(train.tokens))[:size]
    objective.fill(
        train.teacher.images[images],
        torch.from_numpy(train.pictures[images // train.views]),
        train.teacher.texts[texts],
        torch.from_numpy(train.text_pictures[texts]),
    )


def _fill_from_stream(objective: MultiscaleObjective, start: QueueStart, train: StreamSource, seed: int) -> None:
    known = None if start == "empty" else train.sample(len(objective.image_queue.ids))
    if known is None:
        return
    if start == "random":
        _fill_at_random(objective, np.random.default_rng(seed))
        return
    teacher, ids = known
    objective.fill(teacher.images.all(), ids, teacher.texts.all(), ids)


def _fill_at_random(objective: MultiscaleObjective, random: np.random.Generator) -> None:
    size, width = objective.image_queue.features.shape
    rows = torch.from_numpy(random.standard_normal((2, size, width), dtype=np.float32))
    nobody = torch.full((size,), NO_IMAGE)
    objective.fill(F.normalize(rows[0], dim=1), nobody, F.normalize(rows[1], dim=1), nobody)
