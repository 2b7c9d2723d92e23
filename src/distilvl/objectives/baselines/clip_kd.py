"""CLIP-KD (Yang et al., CVPR 2024, arXiv 2307.12732): the three parts that its combined method uses.

The paper tries six: feature (FD), masked feature (MFD), gradient (GD), contrastive relational (CRD), interactive
contrastive (ICL) and augmented feature distillation (AFD). Its combined method, and every script published for
it, is the task's loss + 2000 FD + 1 CRD + 1 ICL. What it calls CRD is its only relational part and is another
thing than Tian's contrastive representation distillation, which is in `crd.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import in_batch_negatives, in_full_precision, kl_divergence


class ClipKdFeature(nn.Module):
    """FD: how far each student row is from its teacher row.

        L = mean_i ||z^v_i - u^v_i||^2 + mean_i ||z^t_i - u^t_i||^2

    The paper's formula. Its code takes the mean over the N x D entries instead, which is D times less; the
    weight 2000 belongs to that reading with D = 512, and is 2000 / 512 = 3.9 here, for any D.
    """

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, u_image: Tensor, u_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss in [0, 8], 0 at z == u, from student `z` and teacher `u` unit rows (N, D); `ids` are not used."""
        return ((z_image - u_image).square().sum() + (z_text - u_text).square().sum()) / len(ids)


class ClipKdRelation(nn.Module):
    """CRD in CLIP-KD's sense: the student's in-batch distributions imitate the teacher's.

        L = 1/2 ( mean_i KL( softmax_j(u^v_i.u^t_j / tau) || softmax_j(z^v_i.z^t_j / tau) )
                + mean_i KL( softmax_j(u^t_i.u^v_j / tau) || softmax_j(z^t_i.z^v_j / tau) ) )

    Published weight 1. CLIP-KD scales teacher and student by their own learned logit scales; cached features
    come without one, so both use tau. Rows of one image need no mask: see `kl_divergence`.

    Args:
        temperature: tau > 0, of teacher and student.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, u_image: Tensor, u_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0, 0 at z == u, from student rows `z` and teacher rows `u` (N, D); `ids` are not used."""
        del ids
        student, teacher = z_image @ z_text.T / self.temperature, u_image @ u_text.T / self.temperature
        return (kl_divergence(student, teacher) + kl_divergence(student.T, teacher.T)) / 2


class ClipKdInteractive(nn.Module):
    """ICL: each student row finds the teacher's row of its pair's other side.

        L = 1/2 (mean_i -log softmax_j(z^v_i.u^t_j / tau)_i + mean_i -log softmax_j(z^t_i.u^v_j / tau)_i)

    Published weight 1. The labels are hard, so the teacher cannot speak for another row of the anchor's image:
    j runs over row i itself and the rows of other images, as in `InfoNCE`. CLIP-KD learns the factor 1 / tau;
    its code starts it at log(1 / 0.07) = 2.7 and multiplies by that, without the exponential.

    Args:
        temperature: tau > 0, fixed.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, u_image: Tensor, u_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0 from student rows `z`, teacher rows `u`, all (N, D), and image ids (N,)."""
        own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        excluded = ~(own | in_batch_negatives(ids))
        target = torch.arange(len(ids), device=ids.device)
        images = (z_image @ u_text.T / self.temperature).masked_fill(excluded, -torch.inf)
        texts = (z_text @ u_image.T / self.temperature).masked_fill(excluded, -torch.inf)
        return (F.cross_entropy(images, target) + F.cross_entropy(texts, target)) / 2
