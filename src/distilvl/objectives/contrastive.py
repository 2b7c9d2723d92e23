"""CD, contrastive distillation (eq. 5-7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import LearnedTemperature, in_full_precision, same_image
from distilvl.objectives.queue import EMPTY, Negatives


class ContrastiveDistillation(nn.Module):
    """InfoNCE of student rows against their teacher rows and a queue of other teacher rows.

    For one modality, with unit rows `z_i`, `u_i` and queue `q_k` of the same modality:

        L = -mean_i log( e^{z_i.u_i/tau} / (e^{z_i.u_i/tau} + sum_k e^{z_i.q_k/tau}) )

    and L_CD = L^v + L^t is summed by the caller. The keys are *teacher* features, and only the queue's.

    Args:
        temperature: tau > 0, fixed unless it is a `LearnedTemperature`.
        mask_false_negatives: leave queue entries of the row's own image out of the sum over k. The published
            code keeps them, and so pushes a caption's student away from other captions of its image.
    """

    def __init__(self, temperature: float | LearnedTemperature = 0.05, mask_false_negatives: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.mask_false_negatives = mask_false_negatives

    @in_full_precision
    def forward(self, z: Tensor, u: Tensor, queue: Negatives, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0; exactly 0 when no queue entry is a negative of any row.

        Args:
            z: student rows (N, D) of one modality.
            u: their teacher rows (N, D).
            queue: teacher features (K, D) with image ids (K,); empty slots are never negatives.
            ids: image of each row, (N,).
        """
        positive = (z * u).sum(dim=1, keepdim=True)
        negative = z @ queue.features.to(z).T
        queue_ids = queue.ids.to(ids.device)
        excluded = (queue_ids == EMPTY).expand_as(negative)
        if self.mask_false_negatives:
            excluded = excluded | same_image(ids, queue_ids)
        # Divided before infinities are put in: a temperature that learns would get 0 * inf from them.
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        logits[:, 1:].masked_fill_(excluded, -torch.inf)
        return F.cross_entropy(logits, torch.zeros_like(ids))
