"""KD, soft targets (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2)."""

from __future__ import annotations

from torch import Tensor

from distilvl.objectives.loss import Batch, Loss, TemperatureSettings, kl_divergence


class SoftTargetDistillation(Loss):
    """The teacher's probabilities over classes, where the classes are the batch's other modality.

    Hinton's classifier has fixed classes; image-text features have none. The teacher's texts of the batch serve
    as a zero-shot classifier of images, its images as one of texts, for teacher and student alike:

        L = mean_i KL( softmax_j(u^v_i.u^t_j / tau) || softmax_j(z^v_i.u^t_j / tau) )
          + mean_i KL( softmax_j(u^t_i.u^v_j / tau) || softmax_j(z^t_i.u^v_j / tau) )

    Only what is classified is the student's; the classes are the teacher's in both distributions, as a
    classifier's labels are the same for teacher and student.

    Without Hinton's factor T^2, which keeps soft and hard gradients in proportion when both are taken of the
    same logits, the soft ones at temperature T and the hard ones at 1. The unit here is the temperature of the
    task's loss, by which its cosines become logits: at the same tau, T = tau / tau_task is 1 and so is T^2.
    tau^2 itself would be wrong (0.0025), since no loss is taken of bare cosines.

    Embeddings of one image need no mask: see `kl_divergence`.

    Args:
        temperature: tau > 0, of teacher and student.

    >>> import torch
    >>> from distilvl.objectives.baselines import SoftTargetDistillation
    >>> loss = SoftTargetDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "kd", "soft targets (KD)"
    formula = "mean_i KL( softmax_j(u^v_i.u^t_j/tau), softmax_j(z^v_i.u^t_j/tau) ) + the same"
    settings = TemperatureSettings

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        teacher = u_image @ u_text.T / self.temperature
        return kl_divergence(z_image @ u_text.T / self.temperature, teacher) + kl_divergence(
            z_text @ u_image.T / self.temperature, teacher.T
        )
