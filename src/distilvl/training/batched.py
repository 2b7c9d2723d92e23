"""A network over all images or captions of a split, a batch at a time: features for scoring, rows of frozen towers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.token_rows import TokenRows

Rows = npt.NDArray[np.float32]
_BATCH = 250


@torch.no_grad()
def over_rows(
    fabric: Fabric, encode: Callable[[Tensor], Tensor], rows: npt.NDArray[Any], *, full: bool = False
) -> Rows:
    """`encode` of (n, ...) pixels or pooled rows: (n, width) float32, computed in float32 if `full`."""
    blocks = []
    for start in range(0, len(rows), _BATCH):
        block = torch.from_numpy(rows[start : start + _BATCH]).to(fabric.device)
        with nullcontext() if full else fabric.autocast():
            blocks.append(encode(block).float().cpu().numpy())
    return np.concatenate(blocks)


@torch.no_grad()
def over_texts(
    fabric: Fabric,
    encoder: DualEncoder,
    encode: Callable[[Tensor, Tensor], Tensor],
    tokens: TokenRows,
    *,
    full: bool = False,
) -> Rows:
    """`encode` of token ids: (m, width) float32, in order, computed in float32 if `full`.

    Captions of like length share a batch, to pad little.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    found: Rows | None = None
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        ids, mask = encoder.pad([tokens[row] for row in rows])
        with nullcontext() if full else fabric.autocast():
            block = encode(ids.to(fabric.device), mask.to(fabric.device)).float().cpu().numpy()
        if found is None:
            found = np.empty((len(order), block.shape[1]), dtype=np.float32)
        found[rows] = block
    assert found is not None  # a dataset has captions
    return found
