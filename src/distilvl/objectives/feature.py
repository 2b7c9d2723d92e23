"""FD, feature distillation (eq. 8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss


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
