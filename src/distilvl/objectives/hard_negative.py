"""HND, hard-negative distillation (eq. 10-14)."""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, in_batch_negatives
from distilvl.objectives.registry import Settings

Which = Literal["hardest", "all"]


Reduction = Literal["sum", "mean"]


class HardNegativeSettings(Settings):
    """HND, eq. 10-14."""

    margin: float = Field(0.0, ge=0, description="alpha")
    negatives: Which = "hardest"
    reduction: Reduction = "sum"
    mask_false_negatives: bool = True


class HardNegativeDistillation(Loss):
    """Hinges that rank each student embedding's own teacher feature above its hardest negatives in the batch.

        H(A, B) = sum_i [alpha + max_{j: g(j) != g(i)} a_i.b_j - a_i.b_i]_+  +  the same over columns
        L_HND   = H(z^v, u^v) + H(z^t, u^t) + H(z^v, u^t) + H(z^t, u^v)                     eq. 10-14

    Images and texts that are no pairs have the first two terms only.

    Args:
        margin: alpha >= 0.
        negatives: "hardest" (the paper): the largest hinge of a row or column; "all" (the published code): their sum.
        reduction: "sum" over the batch (the published code) or "mean", the same divided by N.
        mask_false_negatives: negatives are items of other images; without it, all others, as published.

    >>> import torch
    >>> from distilvl.objectives import HardNegativeDistillation
    >>> loss = HardNegativeDistillation(0.2)(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "hnd", "hard-negative distillation (HND)"
    formula = "eq. 10-14: sum_i [alpha + max_{j: g(j) != g(i)} a_i.b_j - a_i.b_i]_+ over rows and columns, 4 terms"
    settings = HardNegativeSettings
    needs_pairs = False

    def __init__(
        self, margin: float = 0.0, negatives: Which = "hardest", reduction: Reduction = "sum",
        mask_false_negatives: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.margin, self.negatives, self.reduction = margin, negatives, reduction
        self.mask_false_negatives = mask_false_negatives

    def forward(self, batch: Batch) -> Tensor:
        """L_HND >= 0; a row without any negative adds exactly 0."""
        (z_image, z_text, u_image, u_text), ids = batch.embeddings, batch.ids
        images, texts = self._h(z_image, u_image, ids), self._h(z_text, u_text, batch.ids_of_texts)
        if batch.text_ids is not None:
            return self._reduced(images, ids) + self._reduced(texts, batch.text_ids)
        total = images + texts + self._h(z_image, u_text, ids) + self._h(z_text, u_image, ids)
        return self._reduced(total, ids)

    def _h(self, a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        similarity, negative = a @ b.T, in_batch_negatives(ids, self.mask_false_negatives)
        own = similarity.diagonal()
        # The hinge grows with the similarity, so the hardest negative has the largest hinge. Zeros in place
        # of non-negatives never win over a positive hinge, and keep infinities out of the gradient.
        rows = F.relu(self.margin + similarity - own[:, None]).masked_fill(~negative, 0)
        columns = F.relu(self.margin + similarity - own[None, :]).masked_fill(~negative, 0)
        if self.negatives == "all":
            return rows.sum() + columns.sum()
        return rows.amax(dim=1).sum() + columns.amax(dim=0).sum()

    def _reduced(self, total: Tensor, ids: Tensor) -> Tensor:
        return total / len(ids) if self.reduction == "mean" else total
