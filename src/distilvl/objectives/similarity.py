"""SD, similarity distillation (eq. 9)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_full_precision


class SimilarityDistillation(nn.Module):
    """How far each student row points away from its teacher row.

    For one modality L = 1 - (1 + mean_i cos(z_i, u_i)) / 2, and L_SD = L^v + L^t is summed by the caller.

    Args:
        halved: the formula above, of the published code; False gives 1 - mean cos, which the paper's wording
            also allows and which is exactly twice as large.
    """

    def __init__(self, halved: bool = True) -> None:
        super().__init__()
        self.halved = halved

    @in_full_precision
    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """A 0-d loss in [0, 1], or [0, 2] if not halved, from student `z` and teacher `u` rows (N, D)."""
        distance = 1 - F.cosine_similarity(z, u, dim=1).mean()
        return distance / 2 if self.halved else distance
