"""KD, soft targets (Hinton, Vinyals, Dean 2015, section 2), and DKD, the same in two parts (Zhao et al., CVPR 2022)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.loss import Batch, Loss, TemperatureLoss, TemperatureSettings, kl_divergence, own_and_negatives


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


class DecoupledSettings(TemperatureSettings):
    """DKD's two weights."""

    alpha: float = Field(1.0, ge=0, description="weight of the target's part")
    beta: float = Field(8.0, ge=0, description="weight of the others' part")


class DecoupledDistillation(Loss):
    """KD in two parts, whether it is the target and which of the others (Zhao et al. 2022, arXiv 2203.08679, eq. 7).

    With p = softmax_j(u^v_i.u^t_j / tau) over item i itself and those of other images, q the same of z^v_i.u^t_j, and
    p^, q^ the softmax over the others alone:

        L = mean_i alpha KL( (p_i, 1 - p_i) || (q_i, 1 - q_i) ) + beta KL( p^ || q^ )

    plus the same with image and text exchanged. KD has beta = 1 - p_i: little where the teacher is sure. The classes
    and the temperature are those of `SoftTargetDistillation`; a hard target asks for the mask that KD does without.

    >>> import torch
    >>> from distilvl.objectives.baselines import DecoupledDistillation
    >>> loss = DecoupledDistillation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "dkd", "decoupled soft targets (DKD)"
    formula = "mean_i alpha KL( (p_i, 1-p_i), (q_i, 1-q_i) ) + beta KL( p, q over the others ) + the same"
    settings = DecoupledSettings

    def __init__(self, temperature: float = 0.05, alpha: float = 1.0, beta: float = 8.0) -> None:
        super().__init__()
        self.temperature, self.alpha, self.beta = temperature, alpha, beta

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        teacher = u_image @ u_text.T
        images = self._one_way(z_image @ u_text.T, teacher, batch.ids)
        return images + self._one_way(z_text @ u_image.T, teacher.T, batch.ids)

    def _one_way(self, student: Tensor, teacher: Tensor, ids: Tensor) -> Tensor:
        own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        logits = [own_and_negatives(cosines / self.temperature, ids) for cosines in (student, teacher)]
        # log of (p_i, 1 - p_i), both as sums of exponentials: 1 - p_i loses its digits where p_i is near 1.
        sides = [torch.stack([one.diagonal(), _of_others(one, own)], dim=1) for one in logits]
        others = [one.masked_fill(own, -torch.inf) for one in logits]
        alone = torch.isinf(others[0]).all(dim=1)  # all of the batch is one image
        if alone.any():
            return student.sum() * 0
        return self.alpha * kl_divergence(sides[0], sides[1]) + self.beta * _kl_of_finite(others[0], others[1])


def _of_others(logits: Tensor, own: Tensor) -> Tensor:
    """log sum_{j != i} e^logits_ij, (N,)."""
    return torch.logsumexp(logits.masked_fill(own, -torch.inf), dim=1)


def _kl_of_finite(student: Tensor, teacher: Tensor) -> Tensor:
    """As `kl_divergence`, where entries that are minus infinity in both have no part."""
    left_out = torch.isinf(student)
    log_q, log_p = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    terms = log_p.exp() * (log_p.masked_fill(left_out, 0) - log_q.masked_fill(left_out, 0))
    return terms.sum() / len(student)
