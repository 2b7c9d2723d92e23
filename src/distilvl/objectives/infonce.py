"""InfoNCE on the pairs alone: the baseline that is trained without a teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.objectives.common import LearnedTemperature, in_batch_negatives, in_full_precision


class InfoNCE(nn.Module):
    """Symmetric contrastive loss of student images and texts (CLIP, Radford et al. 2021, section 2.3).

        L = 1/2 (mean_i -log softmax_j(z^v_i.z^t_j / tau)_i + mean_i -log softmax_j(z^t_i.z^v_j / tau)_i)

    where j runs over row i itself and the rows of other images.

    Args:
        temperature: tau > 0, fixed unless it is a `LearnedTemperature`.
    """

    def __init__(self, temperature: float | LearnedTemperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    @in_full_precision
    def forward(self, z_image: Tensor, z_text: Tensor, ids: Tensor) -> Tensor:
        """A 0-d loss >= 0 from student rows (N, D) and image ids (N,)."""
        own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        candidates = own | in_batch_negatives(ids)
        # Divided before infinities are put in: a temperature that learns would get 0 * inf from them.
        logits = (z_image @ z_text.T / self.temperature).masked_fill(~candidates, -torch.inf)
        target = torch.arange(len(ids), device=ids.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
