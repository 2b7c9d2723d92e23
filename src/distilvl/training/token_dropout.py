"""Caption dropout: tokens that the student does not get to see, while the teacher's row is of the whole caption."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_tokens(attention_mask: Tensor, share: float) -> Tensor:
    """A mask (N, L) in which each token but the first was hidden with probability `share`, in [0, 1).

    The first one is what `cls` and `pooler` pooling read. Draws from torch's generator of the mask's device, whose
    state checkpoints carry.
    """
    kept = torch.rand(attention_mask.shape, device=attention_mask.device) >= share
    kept[:, 0] = True
    return attention_mask * kept
