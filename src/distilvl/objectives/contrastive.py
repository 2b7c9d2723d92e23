"""CD, contrastive distillation (eq. 5-7)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, LearnedTemperature, Loss, same_image
from distilvl.objectives.queue import EMPTY, Negatives, QueueSettings


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
