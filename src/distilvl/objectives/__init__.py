"""The training objective: tensors in, tensors out. Where each equation of the paper (arXiv 2404.10838) is:

    eq. 4        L2-normalised embeddings          `students/build.py`, the last module of a student
    eq. 5-7      CD, contrastive distillation      `contrastive.py`, its queue in `queue.py`
    eq. 8        FD, feature distillation          `feature.py`
    eq. 9        SD, similarity distillation       `feature.py`
    eq. 10-14    HND, hard-negative distillation   `hard_negative.py`
    eq. 15-16    scales s_m                        `balancers/base.py`, `scales`
    eq. 17       weights w_m                       `balancers/base.py`, `rates` and `weights`
    eq. 18       the objective                     `balancers/paper.py`

Beyond the paper: QD in `distribution.py`, InfoNCE in `infonce.py`, losses of other systems in `baselines/`. All are
built on `loss.py`; `multiscale.py` is all chosen losses of a step; `registry.py` finds losses and balancers by name.

Shapes everywhere: N pairs in a batch, embedding dimension D; `z` student embeddings, `u` teacher features, (N, D) and
L2-normalised; `ids` (N,) int64 says which image an embedding belongs to (>= 0).
"""

from distilvl.objectives.contrastive import ContrastiveDistillation
from distilvl.objectives.distribution import QueueDistribution
from distilvl.objectives.feature import FeatureDistillation, SimilarityDistillation
from distilvl.objectives.hard_negative import HardNegativeDistillation
from distilvl.objectives.infonce import InfoNCE
from distilvl.objectives.loss import LOSSES, Batch, Loss
from distilvl.objectives.multiscale import MultiscaleObjective
from distilvl.objectives.queue import EMPTY, NO_IMAGE, Negatives, TeacherQueue
from distilvl.objectives.registry import Settings

__all__ = [
    "EMPTY", "LOSSES", "NO_IMAGE", "Batch", "ContrastiveDistillation", "FeatureDistillation",
    "HardNegativeDistillation", "InfoNCE", "Loss", "MultiscaleObjective", "Negatives", "QueueDistribution", "Settings",
    "SimilarityDistillation", "TeacherQueue",
]  # fmt: skip
