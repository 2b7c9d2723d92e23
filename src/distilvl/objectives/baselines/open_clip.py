"""The distillation term of open_clip (Ilharco et al. 2021; `DistillClipLoss` in its losses)."""

from pydantic import Field
from torch import Tensor

from distilvl.objectives.loss import Batch, Loss, cross_entropy
from distilvl.objectives.registry import Settings


class OpenClipSettings(Settings):
    """open_clip's distillation term."""

    temperature_student: float = Field(0.05, gt=0)
    temperature_teacher: float = Field(0.05, gt=0)


class OpenClipDistillation(Loss):
    """Cross-entropy of in-batch distributions against the teacher's (Ilharco et al. 2021, its `DistillClipLoss`).

        L = 1/2 ( mean_i -sum_j p_ij log softmax_j(z^v_i.z^t_j / tau_s),   p_i = softmax_j(u^v_i.u^t_j / tau_t)
                + the same with image and text exchanged )

    where j runs over the whole batch; tau_s > 0 is `temperature_student`, tau_t > 0 `temperature_teacher`, for a CLIP
    teacher usually 0.01. Embeddings of one image need no mask: see `kl_divergence`.

    >>> import torch
    >>> from distilvl.objectives.baselines import OpenClipDistillation
    >>> loss = OpenClipDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "openclip", "cross-entropy to the teacher (open_clip)"
    formula = "half of: mean_i -sum_j softmax_j(u^v_i.u^t_j/tau_t) log softmax_j(z^v_i.z^t_j/tau_s) + the same"
    settings = OpenClipSettings

    def __init__(self, temperature_student: float = 0.05, temperature_teacher: float = 0.05) -> None:
        super().__init__()
        self.temperature_student, self.temperature_teacher = temperature_student, temperature_teacher

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        student, teacher = batch.cosines()
        student, teacher = student / self.temperature_student, teacher / self.temperature_teacher
        return (cross_entropy(student, teacher) + cross_entropy(student.T, teacher.T)) / 2
