"""KD, soft targets (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2)."""

from torch import Tensor

from distilvl.objectives.loss import Batch, TemperatureLoss, kl_divergence


class SoftTargetDistillation(TemperatureLoss):
    """The teacher's probabilities over classes (Hinton, Vinyals, Dean 2015, section 2): the batch's other modality.

        L = mean_i KL( softmax_j(u^v_i.u^t_j / tau) || softmax_j(z^v_i.u^t_j / tau) )
          + mean_i KL( softmax_j(u^t_i.u^v_j / tau) || softmax_j(z^t_i.u^v_j / tau) )

    with the tau > 0 of `temperature` for teacher and student: the teacher's texts are a zero-shot classifier of images,
    its images one of texts. Without Hinton's T^2, since T = tau / tau_task is 1 at the task's temperature. Embeddings
    of one image need no mask: see `kl_divergence`.

    >>> import torch
    >>> from distilvl.objectives.baselines import SoftTargetDistillation
    >>> loss = SoftTargetDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "kd", "soft targets (KD)"
    formula = "mean_i KL( softmax_j(u^v_i.u^t_j/tau), softmax_j(z^v_i.u^t_j/tau) ) + the same"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        teacher = u_image @ u_text.T / self.temperature
        images = kl_divergence(z_image @ u_text.T / self.temperature, teacher)
        return images + kl_divergence(z_text @ u_image.T / self.temperature, teacher.T)
