"""QD, queue distribution: the teacher's similarities to the queue, of either modality, as soft targets."""

from torch import Tensor

from distilvl.objectives.loss import Batch, TemperatureLoss, kl_divergence
from distilvl.objectives.queue import EMPTY, Negatives

NOWHERE = -1e30  # the logit of an empty slot: no probability


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
