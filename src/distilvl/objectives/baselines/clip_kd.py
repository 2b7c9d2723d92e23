"""CLIP-KD (Yang et al., CVPR 2024, arXiv 2307.12732): the three parts that its combined method uses.

The paper tries six: feature (FD), masked feature (MFD), gradient (GD), contrastive relational (CRD), interactive
contrastive (ICL) and augmented feature distillation (AFD). Its combined method, and every script published for
it, is the task's loss + 2000 FD + 1 CRD + 1 ICL. What it calls CRD is its only relational part and is another
thing than Tian's contrastive representation distillation, which is in `crd.py`.
"""

from __future__ import annotations

from torch import Tensor

from distilvl.objectives.loss import (
    Batch,
    Loss,
    TemperatureSettings,
    cross_entropy_of_pairs,
    kl_divergence,
    own_and_negatives,
)


class ClipKdFeature(Loss):
    """FD: how far each student embedding is from its teacher feature.

        L = mean_i ||z^v_i - u^v_i||^2 + mean_i ||z^t_i - u^t_i||^2

    The paper's formula. Its code takes the mean over the N x D entries instead, which is D times less; the
    weight 2000 belongs to that reading with D = 512, and is 2000 / 512 = 3.9 here, for any D.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdFeature
    >>> loss = ClipKdFeature()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_feature", "feature distillation (CLIP-KD)"
    formula = "mean_i norm(z^v_i - u^v_i)^2 + the same"

    def forward(self, batch: Batch) -> Tensor:
        """L in [0, 8], 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        return ((z_image - u_image).square().sum() + (z_text - u_text).square().sum()) / len(batch.ids)


class ClipKdRelation(Loss):
    """CRD in CLIP-KD's sense: the student's in-batch distributions imitate the teacher's.

        L = 1/2 ( mean_i KL( softmax_j(u^v_i.u^t_j / tau) || softmax_j(z^v_i.z^t_j / tau) )
                + mean_i KL( softmax_j(u^t_i.u^v_j / tau) || softmax_j(z^t_i.z^v_j / tau) ) )

    Published weight 1. CLIP-KD scales teacher and student by their own learned logit scales; cached features
    come without one, so both use tau. Items of one image need no mask: see `kl_divergence`.

    Args:
        temperature: tau > 0, of teacher and student.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdRelation
    >>> loss = ClipKdRelation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_relation", "contrastive relational distillation (CLIP-KD)"
    formula = "half of: mean_i KL( softmax_j(u^v_i.u^t_j/tau), softmax_j(z^v_i.z^t_j/tau) ) + the same"
    settings, section = TemperatureSettings, "clipkd"

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        student, teacher = z_image @ z_text.T / self.temperature, u_image @ u_text.T / self.temperature
        return (kl_divergence(student, teacher) + kl_divergence(student.T, teacher.T)) / 2


class ClipKdInteractive(Loss):
    """ICL: each student embedding finds the teacher feature of its pair's other side.

        L = 1/2 (mean_i -log softmax_j(z^v_i.u^t_j / tau)_i + mean_i -log softmax_j(z^t_i.u^v_j / tau)_i)

    Published weight 1. The labels are hard, so the teacher cannot speak for another item of the anchor's image:
    j runs over item i itself and those of other images, as in `InfoNCE`. CLIP-KD learns the factor 1 / tau;
    its code starts it at log(1 / 0.07) = 2.7 and multiplies by that, without the exponential.

    Args:
        temperature: tau > 0, fixed.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdInteractive
    >>> loss = ClipKdInteractive()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_interactive", "interactive contrastive learning (CLIP-KD)"
    formula = "half of: mean_i -log softmax_j(z^v_i.u^t_j/tau)_i + the same, without other rows of the own image"
    settings, section = TemperatureSettings, "clipkd"

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        z_image, z_text, u_image, u_text = batch.embeddings
        images = own_and_negatives(z_image @ u_text.T / self.temperature, batch.ids)
        texts = own_and_negatives(z_text @ u_image.T / self.temperature, batch.ids)
        return (cross_entropy_of_pairs(images) + cross_entropy_of_pairs(texts)) / 2
