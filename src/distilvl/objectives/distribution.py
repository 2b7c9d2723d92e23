"""QD, queue distribution: the teacher's similarities to the queue, of either modality, as soft targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, TemperatureSettings
from distilvl.objectives.queue import EMPTY, Negatives

NOWHERE = -1e30
"""The logit of an empty slot: no probability."""


class QueueDistribution(Loss):
    """How the student's similarities to the queue's teacher features differ from the teacher's own.

    For one modality, with z_i, u_i and the queues q^v, q^t of both modalities:

        L    = 1/2 sum_{n in v, t} mean_i KL( softmax_k(u_i.q^n_k / tau) || softmax_k(z_i.q^n_k / tau) )
        L_QD = L^v + L^t

    Within a modality this is SEED (Fang et al., ICLR 2021, eq. 5), a distillation of one encoder; across modalities it
    is what retrieval ranks by. CD tells an item's own teacher feature from all others alike; here the others count by
    how close the teacher has them. The targets are soft, so items of the same image need no mask: the teacher says how
    much they match.

    Not in the paper. Zero at z == u.

    Args:
        temperature: tau > 0, of teacher and student.

    >>> import torch
    >>> from distilvl.objectives import QueueDistribution, TeacherQueue
    >>> loss = QueueDistribution()(torch.eye(4), torch.eye(4), TeacherQueue(8, 4), TeacherQueue(8, 4))
    """

    name, label = "qd", "queue distribution (QD)"
    formula = "per modality 1/2 sum_n mean_i KL( softmax_k(u_i.q^n_k/tau), softmax_k(z_i.q^n_k/tau) ), n = v, t"
    settings = TemperatureSettings
    needs_pairs, reads_queue = False, True

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """L_QD >= 0; exactly 0 when both queues are empty."""
        queues = batch.image_queue, batch.text_queue
        return self.of_tensors(batch.z_image, batch.u_image, *queues) + self.of_tensors(
            batch.z_text, batch.u_text, *queues
        )

    def of_tensors(self, z: Tensor, u: Tensor, image_queue: Negatives, text_queue: Negatives) -> Tensor:
        """L of one modality, from `z` and `u` (N, D) and both queues (K, D); empty slots are left out."""
        return (self._divergence(z, u, image_queue) + self._divergence(z, u, text_queue)) / 2

    def _divergence(self, z: Tensor, u: Tensor, queue: Negatives) -> Tensor:
        keys = queue.features.to(z).T
        empty = queue.ids.to(z.device) == EMPTY
        # Finite, so that an empty slot's 0 * (x - x) is 0; with nothing but empty slots both sides are uniform.
        student, teacher = ((rows @ keys / self.temperature).masked_fill(empty, NOWHERE) for rows in (z, u))
        targets = F.log_softmax(teacher.detach(), dim=1)
        return F.kl_div(F.log_softmax(student, dim=1), targets, reduction="batchmean", log_target=True)
