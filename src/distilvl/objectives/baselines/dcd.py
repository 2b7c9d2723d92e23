"""DCD, dynamic contrastive distillation (Rao et al., IEEE TMM 2023, arXiv 2207.01426; code `raojay7/DCD`)."""

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
    """DCD (Rao et al., IEEE TMM 2023, arXiv 2207.01426): the teacher chooses and weights negatives.

    For the direction image to text, C_i holds item i itself and the K items of other images whose texts the
    teacher scores highest, that is, the largest u^v_i.u^t_j. Over C_i, with logits divided by tau:

        t_i = softmax_j(u^v_i.u^t_j), s_i = softmax_j(z^v_i.z^t_j),  j in C_i
        d_i = H(t_i) / sum_k H(t_k)                        difficulty: the teacher's entropy
        c_i = softmax_i( (1 - d_i)^2 )                     confidence
        L   = alpha sum_i c_i KL(t_i || s_i) + (1 - alpha) sum_i d_i (-log s_ii)

    and L_DCD is the mean over both directions. Their cross-encoders score drawn texts by squared error and binary
    cross-entropy; a dual encoder's cosines have an arbitrary offset, which the softmax over C_i does not see. K >= 1 is
    `hard_negatives`, tau > 0 the `temperature`; the defaults of K and of `alpha` in [0, 1] are the authors'.

    >>> import torch
    >>> from distilvl.objectives.baselines import DynamicContrastiveDistillation
    >>> loss = DynamicContrastiveDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "dcd", "dynamic contrastive distillation (DCD)"
    formula = "half of: alpha sum_i c_i KL(t_i, s_i) + (1 - alpha) sum_i d_i (-log s_ii) + the same"
    settings = DCDSettings

    def __init__(self, temperature: float = 0.05, hard_negatives: int = 7, alpha: float = 0.2) -> None:
        super().__init__()
        self.temperature, self.hard_negatives, self.alpha = temperature, hard_negatives, alpha

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0; with alpha = 1 it is 0 at z == u. An item without any negative adds exactly 0."""
        student, teacher = (cosines / self.temperature for cosines in batch.cosines())
        negative = in_batch_negatives(batch.ids)
        return (self._direction(student, teacher, negative) + self._direction(student.T, teacher.T, negative)) / 2

    def _direction(self, student: Tensor, teacher: Tensor, negative: Tensor) -> Tensor:
        hardest = teacher.masked_fill(~negative, -torch.inf).topk(min(self.hard_negatives, len(teacher)), dim=1)
        missing = F.pad(hardest.values == -torch.inf, (1, 0))  # the own item comes first and is never missing
        log_t, log_s = (_log_softmax(logits, hardest.indices, missing) for logits in (teacher, student))
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
