"""What a step works on: a batch on the device, each image once, and its pairs; caption dropout, dtype,
whole splits by batches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.students.dual_encoder import DualEncoder, TokenRows


@dataclass(frozen=True)
class Pairs:
    """Teacher rows u^v and u^t (N, D), where known, and image ids (N,), one row a pair."""

    u_image: Tensor | None
    u_text: Tensor | None
    ids: Tensor


@dataclass(frozen=True)
class StepInputs:
    """A batch of B images and N texts on the device.

    In several processes, `images`, `texts` and `attention_mask` are the process's share of these rows only; the rest
    is the whole batch's in each of them.

    Attributes:
        images: (B, 3, H, W) uint8 pixels, or (B, width) rows of a frozen tower.
        texts: (N, L) token ids, or (N, width) rows of a frozen tower.
        attention_mask: (N, L) int64, with token ids.
        ids: row of each image in the training split, or of the first one with the same bytes, (B,).
        text_ids: what the texts belong to, (N,): rows of images for captions; numbers of their own without pairs.
        image_of: position of each caption's image, (N,); none when images and texts are no pairs.
        u_image, u_text: teacher rows (B, D) and (N, D), where known.
    """

    images: Tensor
    texts: Tensor
    attention_mask: Tensor | None
    ids: Tensor
    text_ids: Tensor
    image_of: Tensor | None
    u_image: Tensor | None
    u_text: Tensor | None

    @property
    def of_pairs(self) -> Pairs:
        """One row a pair: an image stands beside each of its captions."""
        if self.image_of is None:
            raise ValueError("images and texts of this batch are no pairs")
        u_image = None if self.u_image is None else self.u_image[self.image_of]
        return Pairs(u_image, self.u_text, self.text_ids)


def drop_tokens(attention_mask: Tensor, share: float) -> Tensor:
    """A mask (N, L) in which each token but the first was hidden with probability `share`, in [0, 1).

    The first one is what `cls` and `pooler` pooling read. Draws from torch's generator of the mask's device, whose
    state checkpoints carry.
    """
    kept = torch.rand(attention_mask.shape, device=attention_mask.device) >= share
    kept[:, 0] = True
    return attention_mask * kept


def resolve_precision(wanted: str, accelerator: str = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Fabric's name for `auto`, `bf16` or `fp32`; `auto` takes bf16 where the device multiplies it natively."""
    if wanted == "auto":
        wanted = "bf16" if _has_bf16(accelerator) else "fp32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def _has_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch do not tell what the processor can do; they get fp32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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
