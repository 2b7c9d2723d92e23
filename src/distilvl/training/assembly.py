"""From the config's words to the objects they name: objective and balancer."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from distilvl.config import BalancerConfig, ObjectiveConfig
from distilvl.objectives import (
    NO_IMAGE,
    ContrastiveDistillation,
    HardNegativeDistillation,
    InfoNCE,
    MultiscaleObjective,
    QueueDistribution,
    SimilarityDistillation,
)
from distilvl.objectives.balancers import (
    Balancer,
    DWABalancer,
    GradNormBalancer,
    OfficialBalancer,
    PaperBalancer,
    StaticBalancer,
    UncertaintyBalancer,
)
from distilvl.objectives.baselines import (
    ClipKdInteractive,
    ClipKdRelation,
    ContrastiveRepresentationDistillation,
    DynamicContrastiveDistillation,
    OpenClipDistillation,
    SoftTargetDistillation,
)
from distilvl.objectives.common import LearnedTemperature
from distilvl.training.materials import Materials
from distilvl.training.stream import StreamSource

QueueStart = Literal["stored", "empty", "random"]


def build_objective(config: ObjectiveConfig, dim: int) -> MultiscaleObjective:
    """The losses of `config`, for features of width `dim`."""
    cd, hnd = config.cd, config.hnd
    start = LearnedTemperature if config.learn_temperatures else float
    return MultiscaleObjective(
        dim,
        config.losses,
        queue_size=cd.queue,
        widths=config.widths,
        contrastive=ContrastiveDistillation(start(cd.temperature), cd.mask_false_negatives),
        similarity=SimilarityDistillation(config.sd.halved),
        hard_negative=HardNegativeDistillation(hnd.margin, hnd.negatives, hnd.reduction, hnd.mask_false_negatives),
        distribution=QueueDistribution(config.qd.temperature),
        infonce=InfoNCE(start(config.infonce.temperature)),
        baselines={
            "kd": SoftTargetDistillation(config.kd.temperature),
            "dcd": DynamicContrastiveDistillation(config.dcd.temperature, config.dcd.hard_negatives, config.dcd.alpha),
            "clipkd_relation": ClipKdRelation(config.clipkd.temperature),
            "clipkd_interactive": ClipKdInteractive(config.clipkd.temperature),
            "crd": ContrastiveRepresentationDistillation(config.crd.temperature),
            "openclip": OpenClipDistillation(config.openclip.temperature_student, config.openclip.temperature_teacher),
        },
    )


def build_balancer(config: BalancerConfig) -> Balancer:
    """The balancer of `config`."""
    if config.name == "paper":
        return PaperBalancer(config.tau, floor=config.floor, smoothing=config.smoothing)
    if config.name == "official":
        return OfficialBalancer(config.tau, floor=config.floor)
    if config.name == "dwa":
        return DWABalancer(config.tau, floor=config.floor)
    if config.name == "uncertainty":
        return UncertaintyBalancer(config.lr)
    if config.name == "gradnorm":
        return GradNormBalancer(config.alpha, config.lr, floor=config.floor)
    return StaticBalancer({str(name): weight for name, weight in config.weights.items()})


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
