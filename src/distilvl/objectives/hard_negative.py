"""HND, hard-negative distillation (eq. 10-14)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.masking import in_batch_negatives
from distilvl.objectives.precision import in_full_precision


class HardNegativeDistillation(nn.Module):
    """Hinges that rank each student row's own teacher row above its hardest negatives in the batch.

        H(A, B) = sum_i [alpha + max_{j: g(j) != g(i)} a_i.b_j - a_i.b_i]_+  +  the same over columns
        L_HND   = H(z^v, u^v) + H(z^t, u^t) + H(z^v, u^t) + H(z^t, u^v)

    Args:
        margin: alpha >= 0.
        negatives: "hardest" (the paper) takes the largest hinge of a row or column, "all" (the published
            code's default) their sum.
        reduction: "sum" over the batch (the published code) or "mean", the same divided by N.
        mask_false_negatives: negatives are rows of other images; without it, all other rows, as published.
    """

    def __init__(
        self,
        margin: float = 0.0,
        negatives: Literal["hardest", "all"] = "hardest",
        reduction: Literal["sum", "mean"] = "sum",
        mask_false_negatives: bool = True,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.negatives = negatives
        self.reduction = reduction
        self.mask_false_negatives = mask_false_negatives

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, u_image: Tensor, u_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0 from student rows `z`, teacher rows `u`, all (N, D), and image ids (N,).

        A row without any negative adds exactly 0.
        """
        negative = in_batch_negatives(ids, self.mask_false_negatives)
        total = (
            self._hinges(z_image @ u_image.T, negative)
            + self._hinges(z_text @ u_text.T, negative)
            + self._hinges(z_image @ u_text.T, negative)
            + self._hinges(z_text @ u_image.T, negative)
        )
        return total / len(ids) if self.reduction == "mean" else total

    def _hinges(self, similarity: Tensor, negative: Tensor) -> Tensor:
        """H(A, B) from a_i.b_j (N, N)."""
        own = similarity.diagonal()
        # The hinge grows with the similarity, so the hardest negative has the largest hinge. Zeros in place
        # of non-negatives never win over a positive hinge, and keep infinities out of the gradient.
        rows = F.relu(self.margin + similarity - own[:, None]).masked_fill(~negative, 0)
        columns = F.relu(self.margin + similarity - own[None, :]).masked_fill(~negative, 0)
        if self.negatives == "all":
            return rows.sum() + columns.sum()
        return rows.amax(dim=1).sum() + columns.amax(dim=0).sum()
