"""HND, hard-negative distillation (eq. 10-14)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_batch_negatives, in_full_precision


class HardNegativeDistillation(nn.Module):
    """Hinges that rank each student row's own teacher row above its hardest negatives in the batch.

        H(A, B) = sum_i [alpha + max_{j: g(j) != g(i)} a_i.b_j - a_i.b_i]_+  +  the same over columns
        L_HND   = H(z^v, u^v) + H(z^t, u^t) + H(z^v, u^t) + H(z^t, u^v)

    Images and texts that are no pairs have the first two terms only.

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
    def forward(
        self,
        z_image: Tensor,
        z_text: Tensor,
        u_image: Tensor,
        u_text: Tensor,
        ids: Tensor,
        text_ids: Tensor | None = None,
    ) -> Tensor:
        """A 0-d loss >= 0; a row without any negative adds exactly 0.

        Args:
            z_image, z_text: student rows (N, D).
            u_image, u_text: teacher rows (N, D).
            ids: image of each row, (N,).
            text_ids: when rows of the two modalities are no pairs: ids (M,) of the M texts; `ids` are the images'.
        """
        if text_ids is not None:
            images, texts = self._h(z_image, u_image, ids), self._h(z_text, u_text, text_ids)
            return self._reduced(images, ids) + self._reduced(texts, text_ids)
        total = (
            self._h(z_image, u_image, ids)
            + self._h(z_text, u_text, ids)
            + self._h(z_image, u_text, ids)
            + self._h(z_text, u_image, ids)
        )
        return self._reduced(total, ids)

    def _h(self, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        """H(A, B), summed."""
        return self._hinges(a @ b.T, in_batch_negatives(ids, self.mask_false_negatives))

    def _reduced(self, total: Tensor, ids: Tensor) -> Tensor:
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
