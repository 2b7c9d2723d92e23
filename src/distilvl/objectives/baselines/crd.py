"""Contrastive distillation by others: CRD and DCD."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, in_batch_negatives, same_image
from distilvl.objectives.queue import EMPTY, Negatives
from distilvl.objectives.registry import Settings


class CRDSettings(Settings):
    """CRD; its negatives are the queues of `objective.cd`."""

    temperature: float = Field(0.07, gt=0)


class ContrastiveRepresentationDistillation(Loss):
    """CRD (Tian, Krishnan, Isola, ICLR 2020, section 3.1): tell an embedding's own teacher feature from others.

    With s_ik = z_i.t_k / tau for teacher features t, N negatives (of other images, in the queue), M items in the data:

        h(z, t) = (e^s / Z) / (e^s / Z + N/M), Z = M mean(e^s)
        L       = mean_i [ -log h(z_i, u_i) - sum_k log(1 - h(z_i, q_k)) ],   of both modalities, summed

    Z/M is the mean of e^{u_i.q_k / tau} over the batch's negatives, without a gradient; M cancels out. Without Z every
    negative at cosine 0 costs log(1 + M/N), a constant force out of the teacher's cone. At z == u the negatives of an
    embedding have h of about 1/N each, so their sum stays about 1 for any N. tau > 0 is `temperature`.

    >>> import torch
    >>> from distilvl.objectives import TeacherQueue
    >>> from distilvl.objectives.baselines import ContrastiveRepresentationDistillation as CRD
    >>> loss = CRD()(torch.eye(4), torch.eye(4), TeacherQueue(8, 4), torch.arange(4))
    """

    name, label = "crd", "contrastive representation distillation (CRD)"
    formula = "per modality mean_i [ -log h(z_i, u_i) - sum_k log(1 - h(z_i, q_k)) ], h = (e^s/Z) / (e^s/Z + N/M)"
    settings = CRDSettings
    needs_pairs, reads_queue = False, True

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0; rows without any negative add exactly 0."""
        images = self.of_tensors(batch.z_image, batch.u_image, batch.image_queue, batch.ids)
        return images + self.of_tensors(batch.z_text, batch.u_text, batch.text_queue, batch.ids_of_texts)

    def of_tensors(self, z: Tensor, u: Tensor, queue: Negatives, ids: Tensor) -> Tensor:
        """L of one modality; arguments as of `ContrastiveDistillation.of_tensors`."""
        keys, queue_ids = queue.features.to(z), queue.ids.to(ids.device)
        negative = ~same_image(ids, queue_ids) & (queue_ids != EMPTY)
        count = negative.sum(dim=1)
        offset = self._log_level(u, keys, negative) + count.clamp(min=1).to(z).log()
        own = F.logsigmoid((z * u).sum(dim=1) / self.temperature - offset)
        others = F.logsigmoid(offset[:, None] - z @ keys.T / self.temperature)
        by_row = own + others.masked_fill(~negative, 0).sum(dim=1)
        return -by_row.masked_fill(count == 0, 0).mean()

    @torch.no_grad()
    def _log_level(self, u: Tensor, keys: Tensor, negative: Tensor) -> Tensor:
        """log(Z/M): log of the mean of e^{u_i.q_k / tau} over all negatives of all rows; 0 if there are none."""
        if not negative.any():
            return u.new_zeros(())
        scores = (u @ keys.T / self.temperature).masked_fill(~negative, -torch.inf)
        return scores.logsumexp(dim=(0, 1)) - negative.sum().to(u).log()


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
