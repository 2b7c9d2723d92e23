"""CRD, contrastive representation distillation (Tian, Krishnan, Isola, ICLR 2020, section 3.1)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, same_image
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
