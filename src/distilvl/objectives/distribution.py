"""QD, queue distribution: the teacher's similarities to the queue, of either modality, as soft targets."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_full_precision
from distilvl.objectives.queue import EMPTY, Negatives

NOWHERE = -1e30
"""The logit of an empty slot: no probability."""


class QueueDistribution(nn.Module):
    """How the student's similarities to the queue's teacher rows differ from the teacher's own.

    For one modality, with rows `z_i`, `u_i` and the queues q^v, q^t of both modalities:

        L = 1/2 sum_{n in v, t} mean_i KL( softmax_k(u_i.q^n_k / tau) || softmax_k(z_i.q^n_k / tau) )

    and L_QD = L^v + L^t is summed by the caller. Within a modality this is SEED (Fang et al., ICLR 2021, eq. 5), a
    distillation of one encoder; across modalities it is what retrieval ranks by. CD tells a row's own teacher row
    from all others alike; here the others count by how close the teacher has them. The targets are soft, so rows of
    the same image need no mask: the teacher says how much they match.

    Not in the paper. Zero at z == u.

    Args:
        temperature: tau > 0, of teacher and student.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    @in_full_precision
    def forward(self, z: Tensor, u: Tensor, image_queue: Negatives, text_queue: Negatives) -> Tensor:
        """A 0-d loss >= 0; exactly 0 when both queues are empty.

        Args:
            z: student rows (N, D) of one modality.
            u: their teacher rows (N, D).
            image_queue, text_queue: teacher features (K, D); empty slots are left out.
        """
        return (self._divergence(z, u, image_queue) + self._divergence(z, u, text_queue)) / 2

    def _divergence(self, z: Tensor, u: Tensor, queue: Negatives) -> Tensor:
        keys = queue.features.to(z).T
        empty = queue.ids.to(z.device) == EMPTY
        # Finite, so that an empty slot's 0 * (x - x) is 0; with nothing but empty slots both sides are uniform.
        student, teacher = ((rows @ keys / self.temperature).masked_fill(empty, NOWHERE) for rows in (z, u))
        targets = F.log_softmax(teacher.detach(), dim=1)
        return F.kl_div(F.log_softmax(student, dim=1), targets, reduction="batchmean", log_target=True)
