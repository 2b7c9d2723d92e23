"""The distillation term of open_clip (Ilharco et al. 2021; `DistillClipLoss` in its losses)."""

from __future__ import annotations

from torch import Tensor, nn

from distilvl.objectives.common import cross_entropy, in_full_precision


class OpenClipDistillation(nn.Module):
    """Cross-entropy of the student's in-batch distributions against the teacher's.

        L = 1/2 ( mean_i -sum_j p_ij log softmax_j(z^v_i.z^t_j / tau_s),   p_i = softmax_j(u^v_i.u^t_j / tau_t)
                + the same with image and text exchanged )

    where j runs over the whole batch. open_clip adds it to its contrastive loss, both with weight 1, and takes
    each model's learned logit scale for 1 / tau. With tau_s == tau_t its gradient is that of `ClipKdRelation`;
    its value is larger by the teacher's entropy, which is its minimum.

    Rows of one image need no mask: see `kl_divergence`.

    Args:
        temperature_student: tau_s > 0.
        temperature_teacher: tau_t > 0, for a CLIP teacher usually 0.01, the inverse of its logit scale.
    """

    def __init__(self, temperature_student: float = 0.05, temperature_teacher: float = 0.05) -> None:
        super().__init__()
        self.temperature_student = temperature_student
        self.temperature_teacher = temperature_teacher

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, u_image: Tensor, u_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0 from student rows `z` and teacher rows `u` (N, D); `ids` are not used."""
        del ids
        student = z_image @ z_text.T / self.temperature_student
        teacher = u_image @ u_text.T / self.temperature_teacher
        return (cross_entropy(student, teacher) + cross_entropy(student.T, teacher.T)) / 2
