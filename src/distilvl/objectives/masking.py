"""Which rows may serve as negatives of which: never two of the same image."""

from __future__ import annotations

import torch
from torch import Tensor


def same_image(ids: Tensor, other_ids: Tensor) -> Tensor:
    """`g(i) == g(j)` for ids (N,) and (M,): bool (N, M)."""
    return ids[:, None] == other_ids[None, :]


def in_batch_negatives(ids: Tensor, mask_false_negatives: bool = True) -> Tensor:
    """Bool (N, N), true where column j is a negative of row i.

    With `mask_false_negatives` that is `g(j) != g(i)`; without, every `j != i`, as in the published code.
    """
    if mask_false_negatives:
        return ~same_image(ids, ids)
    return ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
