"""FD (eq. 8) and SD (eq. 9): each student embedding beside its own teacher feature."""

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss
from distilvl.objectives.registry import Settings


class FeatureDistillation(Loss):
    """Mean absolute difference of student embeddings and teacher features.

        L_FD = mean |z^v - u^v| + mean |z^t - u^t|        eq. 8, means over N x D

    >>> import torch
    >>> from distilvl.objectives import FeatureDistillation
    >>> loss = FeatureDistillation()(torch.eye(4), torch.eye(4))
    """

    name, label = "fd", "feature distillation (FD)"
    formula = "eq. 8: per modality the mean of abs(z - u) over N x D"
    needs_pairs = False

    def forward(self, batch: Batch) -> Tensor:
        """L_FD >= 0."""
        return self.of_tensors(batch.z_image, batch.u_image) + self.of_tensors(batch.z_text, batch.u_text)

    def of_tensors(self, z: Tensor, u: Tensor) -> Tensor:
        """The mean of one modality, from `z` and `u` (N, D)."""
        return F.l1_loss(z, u)


class SimilaritySettings(Settings):
    """SD, eq. 9."""

    halved: bool = Field(True, description="1 - (1 + mean cos)/2 of the code; false: 1 - mean cos")


class SimilarityDistillation(Loss):
    """How far each student embedding points away from its teacher feature.

        L_SD = L^v + L^t,   L = 1 - (1 + mean_i cos(z_i, u_i)) / 2        eq. 9

    `halved` is the published code's; without it 1 - mean cos, which the paper's wording allows as well.

    >>> import torch
    >>> from distilvl.objectives import SimilarityDistillation
    >>> loss = SimilarityDistillation(halved=False)(torch.eye(4), torch.eye(4))
    """

    name, label = "sd", "similarity distillation (SD)"
    formula = "eq. 9: per modality 1 - (1 + mean_i cos(z_i, u_i)) / 2"
    settings = SimilaritySettings
    needs_pairs = False

    def __init__(self, halved: bool = True) -> None:
        super().__init__()
        self.halved = halved

    def forward(self, batch: Batch) -> Tensor:
        """L_SD in [0, 2], or [0, 4] if not halved."""
        return self.of_tensors(batch.z_image, batch.u_image) + self.of_tensors(batch.z_text, batch.u_text)

    def of_tensors(self, z: Tensor, u: Tensor) -> Tensor:
        """L of one modality, from `z` and `u` (N, D)."""
        distance = 1 - F.cosine_similarity(z, u, dim=1).mean()
        return distance / 2 if self.halved else distance
