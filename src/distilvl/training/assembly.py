"""From the config's words to the objects they name: objective and balancer."""

from __future__ import annotations

import numpy as np
import torch

from distilvl.config import BalancerConfig, ObjectiveConfig
from distilvl.objectives import (
    ContrastiveDistillation,
    HardNegativeDistillation,
    InfoNCE,
    MultiscaleObjective,
    SimilarityDistillation,
)
from distilvl.objectives.balancers import (
    Balancer,
    DWABalancer,
    OfficialBalancer,
    PaperBalancer,
    StaticBalancer,
)
from distilvl.training.materials import Materials


def build_objective(config: ObjectiveConfig, dim: int) -> MultiscaleObjective:
    """The losses of `config`, for features of width `dim`."""
    cd, hnd = config.cd, config.hnd
    return MultiscaleObjective(
        dim,
        config.losses,
        queue_size=cd.queue,
        contrastive=ContrastiveDistillation(cd.temperature, cd.mask_false_negatives),
        similarity=SimilarityDistillation(config.sd.halved),
        hard_negative=HardNegativeDistillation(hnd.margin, hnd.negatives, hnd.reduction, hnd.mask_false_negatives),
        infonce=InfoNCE(config.infonce.temperature),
    )


def build_balancer(config: BalancerConfig) -> Balancer:
    """The balancer of `config`."""
    if config.name == "paper":
        return PaperBalancer(config.tau, floor=config.floor, smoothing=config.smoothing)
    if config.name == "official":
        return OfficialBalancer(config.tau, floor=config.floor)
    if config.name == "dwa":
        return DWABalancer(config.tau, floor=config.floor)
    return StaticBalancer({str(name): weight for name, weight in config.weights.items()})


def fill_queues(objective: MultiscaleObjective, train: Materials, seed: int) -> None:
    """Fill both queues with randomly drawn stored features, so that CD has all its negatives at the first step.

    With an empty queue CD is 0 and the balancer's scale for it has no meaning; the published code starts from
    random vectors instead. Every teacher feature is stored already, so real ones cost nothing.
    """
    if train.teacher is None:
        return
    random = np.random.default_rng((seed, len(train.pixels)))
    size = len(objective.image_queue.ids)
    images = random.permutation(len(train.pixels))[:size]
    texts = random.permutation(len(train.tokens))[:size]
    objective.fill(
        train.teacher.images[images].float(),
        torch.from_numpy(images),
        train.teacher.texts[texts].float(),
        torch.from_numpy(train.caption_image[texts]),
    )
