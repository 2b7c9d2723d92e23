"""FD, feature distillation (eq. 8)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_full_precision


class FeatureDistillation(nn.Module):
    """Mean absolute difference of student and teacher features.

    For one modality L = mean over N x D of |z - u|, and L_FD = L^v + L^t is summed by the caller.
    """

    @in_full_precision
    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """A 0-d loss >= 0 from student rows `z` and teacher rows `u`, both (N, D)."""
        return F.l1_loss(z, u)
