"""Losses of a softmax over negatives: CD (eq. 5-7) and QD against the queue, InfoNCE on the pairs alone."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import (
    Batch,
    LearnedTemperature,
    Loss,
    TemperatureLoss,
    cross_entropy_of_pairs,
    kl_divergence,
    own_and_negatives,
    same_image,
)  # fmt: skip
from distilvl.objectives.queue import EMPTY, Negatives, QueueSettings

NOWHERE = -1e30  # the logit of an empty slot: no probability


class ContrastiveSettings(QueueSettings):
    """CD, and the queues that it shares with the other losses that read them."""

    temperature: float = Field(0.05, gt=0, description="tau")
    mask_false_negatives: bool = True


class ContrastiveDistillation(Loss):
    """InfoNCE of student embeddings against their teacher features and a queue of other teacher features.

    For one modality, with z_i, u_i and the queue q_k of the same modality:

        L = -mean_i log( e^{z_i.u_i/tau} / (e^{z_i.u_i/tau} + sum_k e^{z_i.q_k/tau}) )        eq. 5-6
        L_CD = L^v + L^t                                                                      eq. 7

    Args:
        temperature: tau > 0, fixed unless it is a `LearnedTemperature`.
        mask_false_negatives: leave queue entries of the own image out of the sum over k; the published code keeps them.

    >>> import torch
    >>> from distilvl.objectives import ContrastiveDistillation, TeacherQueue
    >>> loss = ContrastiveDistillation()(torch.eye(4), torch.eye(4), TeacherQueue(8, 4), torch.arange(4))
    """

    name, label = "cd", "contrastive distillation (CD)"
    formula = "eq. 5-7: per modality -mean_i log( e^{z_i.u_i/tau} / (e^{z_i.u_i/tau} + sum_k e^{z_i.q_k/tau}) )"
    settings = ContrastiveSettings
    needs_pairs, reads_queue, learns_temperature = False, True, True

    def __init__(self, temperature: float | LearnedTemperature = 0.05, mask_false_negatives: bool = True) -> None:
        super().__init__()
        self.temperature, self.mask_false_negatives = temperature, mask_false_negatives

    @classmethod
    def build(cls, settings: ContrastiveSettings) -> Loss:  # type: ignore[override]
        """The loss; the queues are built by the objective."""
        return cls(settings.temperature, settings.mask_false_negatives)

    def forward(self, batch: Batch) -> Tensor:
        """L_CD >= 0; exactly 0 when no queue entry is a negative of any embedding."""
        images = self.of_tensors(batch.z_image, batch.u_image, batch.image_queue, batch.ids)
        return images + self.of_tensors(batch.z_text, batch.u_text, batch.text_queue, batch.ids_of_texts)

    def of_tensors(self, z: Tensor, u: Tensor, queue: Negatives, ids: Tensor) -> Tensor:
        """L of one modality.

        Args:
            z, u: student embeddings and their teacher features (N, D).
            queue: teacher features (K, D) with image ids (K,); empty slots are never negatives.
            ids: image of each embedding, (N,).
        """
        positive = (z * u).sum(dim=1, keepdim=True)
        negative = z @ queue.features.to(z).T
        queue_ids = queue.ids.to(ids.device)
        excluded = (queue_ids == EMPTY).expand_as(negative)
        if self.mask_false_negatives:
            excluded = excluded | same_image(ids, queue_ids)
        # Divided before infinities are put in: a temperature that learns would get 0 * inf from them.
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        logits[:, 1:].masked_fill_(excluded, -torch.inf)
        return F.cross_entropy(logits, torch.zeros_like(ids))


class InfoNCE(TemperatureLoss):
    """Symmetric contrastive loss of student images and texts (CLIP, Radford et al. 2021, section 2.3); no teacher.

        L = 1/2 (mean_i -log softmax_j(z^v_i.z^t_j / tau)_i + mean_i -log softmax_j(z^t_i.z^v_j / tau)_i)

    where j runs over item i itself and those of other images; `temperature`, tau > 0, may be a `LearnedTemperature`.

    >>> import torch
    >>> from distilvl.objectives import InfoNCE
    >>> loss = InfoNCE(0.07)(torch.eye(4), torch.eye(4), torch.arange(4))
    """

    name, label = "infonce", "contrastive, without a teacher (InfoNCE)"
    formula = "half of: mean_i -log softmax_j(z^v_i.z^t_j/tau)_i + the same, without other rows of the own image"
    needs_teacher, learns_temperature = False, True

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        return self.of_tensors(batch.z_image, batch.z_text, batch.ids)

    def of_tensors(self, z_image: Tensor, z_text: Tensor, ids: Tensor) -> Tensor:
        """L from student embeddings (N, D) and image ids (N,)."""
        logits = own_and_negatives(z_image @ z_text.T / self.temperature, ids)
        return (cross_entropy_of_pairs(logits) + cross_entropy_of_pairs(logits.T)) / 2


class QueueDistribution(TemperatureLoss):
    """How the student's similarities to the queue's teacher features differ from the teacher's own. Not in the paper.

    For one modality, with z_i, u_i and the queues q^v, q^t of both modalities:

        L    = 1/2 sum_{n in v, t} mean_i KL( softmax_k(u_i.q^n_k / tau) || softmax_k(z_i.q^n_k / tau) )
        L_QD = L^v + L^t

    with the tau > 0 of `temperature`. Within a modality this is SEED (Fang et al., ICLR 2021, eq. 5); across modalities
    it is what retrieval ranks by. Soft targets say how much items of one image match, so these need no mask.

    >>> import torch
    >>> from distilvl.objectives import QueueDistribution, TeacherQueue
    >>> loss = QueueDistribution()(torch.eye(4), torch.eye(4), TeacherQueue(8, 4), TeacherQueue(8, 4))
    """

    name, label = "qd", "queue distribution (QD)"
    formula = "per modality 1/2 sum_n mean_i KL( softmax_k(u_i.q^n_k/tau), softmax_k(z_i.q^n_k/tau) ), n = v, t"
    needs_pairs, reads_queue = False, True

    def forward(self, batch: Batch) -> Tensor:
        """L_QD >= 0, 0 at z == u; exactly 0 when both queues are empty."""
        queues = batch.image_queue, batch.text_queue
        images = self.of_tensors(batch.z_image, batch.u_image, *queues)
        return images + self.of_tensors(batch.z_text, batch.u_text, *queues)

    def of_tensors(self, z: Tensor, u: Tensor, image_queue: Negatives, text_queue: Negatives) -> Tensor:
        """L of one modality, from `z` and `u` (N, D) and both queues (K, D); empty slots are left out."""
        return (self._divergence(z, u, image_queue) + self._divergence(z, u, text_queue)) / 2

    def _divergence(self, z: Tensor, u: Tensor, queue: Negatives) -> Tensor:
        keys = queue.features.to(z).T
        empty = queue.ids.to(z.device) == EMPTY
        # Finite, so that an empty slot's 0 * (x - x) is 0; with nothing but empty slots both sides are uniform.
        student, teacher = ((rows @ keys / self.temperature).masked_fill(empty, NOWHERE) for rows in (z, u))
        return kl_divergence(student, teacher.detach())
