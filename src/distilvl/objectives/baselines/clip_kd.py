"""CLIP-KD (Yang et al., CVPR 2024, arXiv 2307.12732): the three parts that its combined method uses, and GD.

Of the others MFD needs masked images, and AFD projections that are learnt beside the student. What it calls CRD is
another thing than Tian's, which is in `crd.py`.
"""

import torch
from torch import Tensor

from distilvl.objectives.loss import (
    Batch,
    Loss,
    TemperatureLoss,
    cross_entropy_of_pairs,
    kl_divergence,
    own_and_negatives,
)  # fmt: skip


class ClipKdFeature(Loss):
    """FD: how far each student embedding is from its teacher feature.

        L = mean_i ||z^v_i - u^v_i||^2 + mean_i ||z^t_i - u^t_i||^2

    Their code takes the mean over N x D, which is D times less: its weight 2000 at D = 512 is 3.9 here, for any D.

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


class ClipKdRelation(TemperatureLoss):
    """CRD in CLIP-KD's sense: the student's in-batch distributions imitate the teacher's.

        L = 1/2 ( mean_i KL( softmax_j(u^v_i.u^t_j / tau) || softmax_j(z^v_i.z^t_j / tau) )
                + mean_i KL( softmax_j(u^t_i.u^v_j / tau) || softmax_j(z^t_i.z^v_j / tau) ) )

    with the tau > 0 of `temperature` for teacher and student. Items of one image need no mask: see `kl_divergence`.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdRelation
    >>> loss = ClipKdRelation()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_relation", "contrastive relational distillation (CLIP-KD)"
    formula = "half of: mean_i KL( softmax_j(u^v_i.u^t_j/tau), softmax_j(z^v_i.z^t_j/tau) ) + the same"
    section = "clipkd"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        student, teacher = batch.cosines()
        student, teacher = student / self.temperature, teacher / self.temperature
        return (kl_divergence(student, teacher) + kl_divergence(student.T, teacher.T)) / 2


class ClipKdInteractive(TemperatureLoss):
    """ICL: each student embedding finds the teacher feature of its pair's other side.

        L = 1/2 (mean_i -log softmax_j(z^v_i.u^t_j / tau)_i + mean_i -log softmax_j(z^t_i.u^v_j / tau)_i)

    where j runs over item i itself and those of other images, and tau > 0 is the fixed `temperature`.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdInteractive
    >>> loss = ClipKdInteractive()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_interactive", "interactive contrastive learning (CLIP-KD)"
    formula = "half of: mean_i -log softmax_j(z^v_i.u^t_j/tau)_i + the same, without other rows of the own image"
    section = "clipkd"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0."""
        z_image, z_text, u_image, u_text = batch.embeddings
        images = own_and_negatives(z_image @ u_text.T / self.temperature, batch.ids)
        texts = own_and_negatives(z_text @ u_image.T / self.temperature, batch.ids)
        return (cross_entropy_of_pairs(images) + cross_entropy_of_pairs(texts)) / 2


class ClipKdGradient(TemperatureLoss):
    """GD: the task's loss pulls the student's embeddings as it would pull the teacher's features (their eq. 13).

    With P_ij = softmax_j(x_i.y_j / tau) over item i itself and those of other images, the gradients of
    sum_i -log P_ii on x and on y are

        g(x, y) = (P - 1) y / tau,    h(x, y) = (P - 1)^T x / tau                 (N, D)
        L = mean_i ||g(z^v, z^t)_i - g(u^v, u^t)_i||^2 + mean_i ||h(z^v, z^t)_i - h(u^v, u^t)_i||^2

    plus the same with image and text exchanged; tau > 0 is the `temperature` of teacher and student. Their code takes
    the mean over N x D of gradients of a mean over N, N^2 D times less.

    >>> import torch
    >>> from distilvl.objectives.baselines import ClipKdGradient
    >>> loss = ClipKdGradient()(*[torch.eye(4)] * 4, torch.arange(4))
    """

    name, label = "clipkd_gradient", "gradient distillation (CLIP-KD)"
    formula = "mean_i norm( dL/dz^v_i - dL/du^v_i )^2, L = InfoNCE, and the same of texts"
    section = "clipkd"

    def forward(self, batch: Batch) -> Tensor:
        """L >= 0, 0 at z == u."""
        z_image, z_text, u_image, u_text = batch.embeddings
        found = torch.zeros((), dtype=z_image.dtype, device=z_image.device)
        for student, teacher in (((z_image, z_text), (u_image, u_text)), ((z_text, z_image), (u_text, u_image))):
            pulls = zip(self._pulls(*student, batch.ids), self._pulls(*teacher, batch.ids), strict=True)
            found = found + sum((mine - theirs).square().sum() for mine, theirs in pulls)
        return found / len(batch.ids)

    def _pulls(self, x: Tensor, y: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """g and h."""
        one = torch.eye(len(ids), dtype=x.dtype, device=x.device)
        pull = own_and_negatives(x @ y.T / self.temperature, ids).softmax(dim=1) - one
        return pull @ y / self.temperature, pull.T @ x / self.temperature
