"""Fit a vision transformer's position embeddings to another image size, once, when the student is built."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError


def fit_positions(model: Any, size: int) -> None:
    """Resample `model`'s learnt position grid to `size` x `size` pixels and set `config.image_size`, in place.

    The grid is a parameter (ViT and its kind) or a table of embeddings (the vision towers of CLIP and SigLIP). Models
    without a learnt grid (CNNs, rotary positions) only get the new `image_size`.

    Raises:
        DistilvlError: the patch size does not divide `size`.
    """
    config = model.config
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and size % patch:
        near = max(patch, round(size / patch) * patch)
        raise DistilvlError(f"image size {size} is not a multiple of the tower's patch of {patch}.", f"Use {near}.")
    if getattr(config, "image_size", None) is not None:
        config.image_size = size
    if not isinstance(patch, int):
        return
    for module in model.modules():
        if isinstance(getattr(module, "position_embedding", None), nn.Embedding) and hasattr(module, "patch_embedding"):
            _fit_table(module, size, patch)
    embeddings = getattr(model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if embeddings is None or not isinstance(positions, nn.Parameter):
        return
    embeddings.position_embeddings = nn.Parameter(resample_grid(positions.detach(), size // patch))
    patches = getattr(embeddings, "patch_embeddings", None)
    if patches is not None:
        patches.image_size = (size, size)
        patches.num_patches = (size // patch) ** 2


def _fit_table(embeddings: Any, size: int, patch: int) -> None:
    table = embeddings.position_embedding
    rows = resample_grid(table.weight.detach()[None], size // patch)[0]
    table.weight, table.num_embeddings = nn.Parameter(rows), len(rows)
    embeddings.position_ids = torch.arange(len(rows))[None]
    embeddings.image_size = size
    embeddings.num_patches, embeddings.num_positions = (size // patch) ** 2, len(rows)


def resample_grid(positions: Tensor, side: int) -> Tensor:
    """(1, extra + g*g, C) position embeddings to (1, extra + side*side, C), bicubic with antialiasing.

    The leading `extra` rows (CLS, distillation token) are kept as they are.
    """
    total = positions.shape[1]
    old_side = isqrt(total)
    extra = total - old_side**2
    if old_side == side:
        return positions.clone()
    grid = positions[:, extra:].reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    flat = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(positions.dtype)
    return torch.cat([positions[:, :extra], flat], dim=1)
