"""DCD, dynamic contrastive distillation (Rao et al., IEEE TMM 2023, arXiv 2207.01426; code `raojay7/DCD`)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, in_batch_negatives
from distilvl.objectives.registry import Settings


class DCDSettings(Settings):
    """DCD, dynamic contrastive distillation."""

    temperature: float = Field(0.05, gt=0)
    hard_negatives: int = Field(7, ge=1, description="K, chosen by the teacher")
    alpha: float = Field(0.2, ge=0, le=1, description="share of the distillation term")


class DynamicContrastiveDistillation(Loss):
    """The teacher chooses the hard negatives, and says how much an item shall learn from it and how much alone.

    For the direction image to text, C_i holds item i itself and the K items of other images whose texts the
    teacher scores highest, that is, the largest u^v_i.u^t_j. Over C_i, with logits divided by tau:

        t_i = softmax_j(u^v_i.u^t_j), s_i = softmax_j(z^v_i.z^t_j),  j in C_i
        d_i = H(t_i) / sum_k H(t_k)                        difficulty: the teacher's entropy
        c_i = softmax_i( (1 - d_i)^2 )                     confidence
        L   = alpha sum_i c_i KL(t_i || s_i) + (1 - alpha) sum_i d_i (-log s_ii)

    and L_DCD is the mean over both directions. Items that the teacher finds easy are learned from its scores,
    those that it is unsure of from the pairs. Weights and choice follow the authors' code; what differs:

    - Their teacher and student are cross-encoders that score one image with a set of drawn texts. Here a score
      is a cosine, the candidates are the items of the batch, and texts are anchors as well as images.
    - They compare scores by squared error and learn from the pairs by binary cross-entropy, which suits the
      free logits of a head. Cosines / tau of a dual encoder have an arbitrary common offset, so both terms use
      the softmax over C_i, in which an offset has no effect.
    - Their code multiplies c with a mean that was already taken over the batch, where it sums to 1 and has no
      effect. Here it weights items, as the paper describes it; being a softmax of numbers close to 1, it stays
      close to 1/N.

    Items of the anchor's own image are never among the K: it is a choice of negatives.

    Args:
        temperature: tau > 0.
        hard_negatives: K >= 1, 7 in the authors' code; an item with fewer negatives takes what there is.
        alpha: share of the distillation term in [0, 1], 0.2 in the authors' code.

    >>> import torch
    >>> from distilvl.objectives.baselines import DynamicContrastiveDistillation
    >>> loss = DynamicContrastiveDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "dcd", "dynamic contrastive distillation (DCD)"
    formula = "half of: alpha sum_i c_i KL(t_i, s_i) + (1 - alpha) sum_i d_i (-log s_ii) + the same"
    settings = DCDSettings

    def __init__(self, temperature: float = 0.05, hard_negatives: int = 7, alpha: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature
        self.hard_negatives = hard_negatives
        self.alpha = alpha

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0; with alpha = 1 it is 0 at z == u. An item without any negative adds exactly 0."""
        z_image, z_text, u_image, u_text = batch.embeddings
        student, teacher = z_image @ z_text.T / self.temperature, u_image @ u_text.T / self.temperature
        negative = in_batch_negatives(batch.ids)
        return (self._direction(student, teacher, negative) + self._direction(student.T, teacher.T, negative)) / 2

    def _direction(self, student: Tensor, teacher: Tensor, negative: Tensor) -> Tensor:
        """L of one direction from logits (N, N)."""
        hardest = teacher.masked_fill(~negative, -torch.inf).topk(min(self.hard_negatives, len(teacher)), dim=1)
        missing = F.pad(hardest.values == -torch.inf, (1, 0))  # the own item comes first and is never missing
        log_t = _log_softmax(teacher, hardest.indices, missing)
        log_s = _log_softmax(student, hardest.indices, missing)
        divergence = (log_t.exp() * (log_t - log_s)).sum(dim=1)
        with torch.no_grad():
            entropy = -(log_t.exp() * log_t).sum(dim=1)
            difficulty = entropy / entropy.sum().clamp(min=torch.finfo(entropy.dtype).tiny)
            confidence = F.softmax((1 - difficulty).square(), dim=0)
        return self.alpha * (confidence * divergence).sum() - (1 - self.alpha) * (difficulty * log_s[:, 0]).sum()


def _log_softmax(logits: Tensor, chosen: Tensor, missing: Tensor) -> Tensor:
    """Log-probabilities (N, 1 + K) of the own and the chosen columns of logits (N, N), 0 where one is missing."""
    picked = torch.cat([logits.diagonal()[:, None], logits.gather(1, chosen)], dim=1)
    return F.log_softmax(picked.masked_fill(missing, -torch.inf), dim=1).masked_fill(missing, 0)
