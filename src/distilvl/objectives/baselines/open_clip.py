"""The distillation term of open_clip (Ilharco et al. 2021; `DistillClipLoss` in its losses)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from distilvl.objectives.loss import Batch, Loss, cross_entropy
from distilvl.objectives.registry import Settings


class OpenClipSettings(Settings):
    """open_clip's distillation term."""

    temperature_student: float = Field(0.05, gt=0)
    temperature_teacher: float = Field(0.05, gt=0)


class OpenClipDistillation(Loss):
    """Cross-entropy of the student's in-batch distributions against the teacher's.

        L = 1/2 ( mean_i -sum_j p_ij log softmax_j(z^v_i.z^t_j / tau_s),   p_i = softmax_j(u^v_i.u^t_j / tau_t)
                + the same with image and text exchanged )

    where j runs over the whole batch. open_clip adds it to its contrastive loss, both with weight 1, and takes
    each model's learned logit scale for 1 / tau. With tau_s == tau_t its gradient is that of `ClipKdRelation`;
    its value is larger by the teacher's entropy, which is its minimum.

    Embeddings of one image need no mask: see `kl_divergence`.

    Args:
        temperature_student: tau_s > 0.
        temperature_teacher: tau_t > 0, for a CLIP teacher usually 0.01, the inverse of its logit scale.

    >>> import torch
    >>> from distilvl.objectives.baselines import OpenClipDistillation
    >>> loss = OpenClipDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "openclip", "cross-entropy to the teacher (open_clip)"
    formula = "half of: mean_i -sum_j softmax_j(u^v_i.u^t_j/tau_t) log softmax_j(z^v_i.z^t_j/tau_s) + the same"
    settings = OpenClipSettings

    def __init__(self, temperature_student: float = 0.05, temperature_teacher: float = 0.05) -> None:
        super().__init__()
        self.temperature_student = temperature_student
        self.temperature_teacher = temperature_teacher

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        z_image, z_text, u_image, u_text = batch.embeddings
        student = z_image @ z_text.T / self.temperature_student
        teacher = u_image @ u_text.T / self.temperature_teacher
        return (cross_entropy(student, teacher) + cross_entropy(student.T, teacher.T)) / 2
