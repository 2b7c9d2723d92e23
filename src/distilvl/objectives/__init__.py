"""The training objective: one file a loss, the queue, one file a balancer. Tensors in, tensors out.

Shapes everywhere: N pairs in a batch, width D; `z` student rows, `u` teacher rows, both unit rows (N, D);
`ids` (N,) int64 says which image a row belongs to (>= 0). Rows of one image are never each other's negatives.
"""

from __future__ import annotations

from distilvl.objectives.contrastive import ContrastiveDistillation
from distilvl.objectives.distribution import QueueDistribution
from distilvl.objectives.feature import FeatureDistillation
from distilvl.objectives.hard_negative import HardNegativeDistillation
from distilvl.objectives.infonce import InfoNCE
from distilvl.objectives.multiscale import MultiscaleObjective
from distilvl.objectives.queue import EMPTY, NO_IMAGE, Negatives, TeacherQueue
from distilvl.objectives.similarity import SimilarityDistillation

__all__ = [
    "EMPTY",
    "NO_IMAGE",
    "ContrastiveDistillation",
    "FeatureDistillation",
    "HardNegativeDistillation",
    "InfoNCE",
    "MultiscaleObjective",
    "Negatives",
    "QueueDistribution",
    "SimilarityDistillation",
    "TeacherQueue",
]
