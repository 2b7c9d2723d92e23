"""Fit a tower's learnt positions to another image size, once, when the student is built."""

import copy
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.students.towers import loading, own_config, pooling_layer_kwargs

_MOST_EXTRA = 2  # rows beside the grid: CLS, and DeiT's distillation token
_BIAS_TABLE = "relative_position_bias_table"


def fit_positions(model: Any, size: int) -> Any:
    """`model` for pictures of `size` x `size` pixels; itself where it is made for them already, or for any size.

    Whatever depends on the size is made anew by the model's own class. Learnt positions are resampled: a grid (of ViT
    and its kind, CLIP, SigLIP) and a table of relative positions (BEiT). `DistilvlError` where that is impossible.
    """
    network: Any = getattr(model, "timm_model", None)
    if hasattr(network, "set_input_size"):  # timm's own resampling
        what = f"timm's {model.config.architecture} takes no pictures of {size} x {size} pixels"
        with loading(what, "Set student.image.size to another number."):
            network.set_input_size(img_size=(size, size))
        model.config.model_args = {**(model.config.model_args or {}), "img_size": size}
        return model
    old = own_config(model.config, "image")
    patch = getattr(old, "patch_size", None)
    if isinstance(patch, int) and size % patch:
        near = max(patch, round(size / patch) * patch)
        raise DistilvlError(f"image size {size} is not a multiple of the tower's patch of {patch}.", f"Use {near}.")
    had = getattr(old, "image_size", None)
    if had is None or had == size or list(_pair(had)) == [size, size]:
        return model
    config = copy.deepcopy(model.config)
    own_config(config, "image").image_size = size if isinstance(had, int) else [size, size]
    with torch.random.fork_rng(devices=[]):  # the new random weights are thrown away
        fitted = type(model)(config, **pooling_layer_kwargs(model))
    weights, names = model.state_dict(), {name for name, _ in fitted.named_parameters()}
    grid = None if not isinstance(patch, int) else tuple(side // patch for side in _pair(had))
    for name, tensor in fitted.state_dict().items():
        if weights[name].shape == tensor.shape:
            continue
        # What is no parameter is derived from the size, and right already.
        weights[name] = _resampled(name, weights[name], tensor.shape, grid, had) if name in names else tensor
    fitted.load_state_dict(weights)
    return fitted


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return height, width


def _resampled(name: str, weight: Tensor, shape: torch.Size, grid: tuple[int, ...] | None, had: Any) -> Tensor:
    """A weight of pictures of size `had`, whose patches make `grid`, in the shape that another size asks for."""
    if name.endswith(_BIAS_TABLE):
        found = _resampled_table(weight, shape[0])
    else:
        # A parameter (1, N, C), or the (N, C) of a table of embeddings.
        rows = weight[None] if weight.ndim == 2 else weight
        found = _resampled_grid(rows, shape, grid) if rows.ndim == 3 and len(rows) == 1 else None
    if found is None or found.numel() != shape.numel():
        what = f"the image tower's weights {name} belong to pictures of {had} pixels and cannot be resampled."
        raise DistilvlError(what, "Leave student.image.size unset (null), or choose another tower.")
    return found.reshape(shape)


def _resampled_grid(positions: Tensor, shape: torch.Size, grid: tuple[int, ...] | None) -> Tensor | None:
    total, rows = positions.shape[1], shape[-2]
    if grid is None or not 0 <= total - grid[0] * grid[1] <= _MOST_EXTRA:
        grid = (isqrt(total), isqrt(total))
    extra = total - grid[0] * grid[1]
    side = isqrt(max(rows - extra, 0))
    if extra > _MOST_EXTRA or side * side + extra != rows:
        return None
    return resample_grid(positions, side, (grid[0], grid[1]))


def _resampled_table(table: Tensor, rows: int) -> Tensor | None:
    """(n*n + extra, heads) relative positions to (rows, heads); the extra ones, to and from CLS, come last."""
    for extra in (0, 3):
        old, new = isqrt(len(table) - extra), isqrt(rows - extra)
        if old**2 + extra == len(table) and new**2 + extra == rows and old % 2 and new % 2:
            square, rest = table[: old**2], table[old**2 :]
            return torch.cat([resample_grid(square[None], new, (old, old))[0], rest])
    return None


def resample_grid(positions: Tensor, side: int, old: tuple[int, int]) -> Tensor:
    """(1, extra + h*w, C) positions of an `old` grid (h, w) to (1, extra + side*side, C), bicubic with antialiasing.

    The leading `extra` rows (CLS, distillation token) are kept as they are.
    """
    height, width = old
    extra = positions.shape[1] - height * width
    grid = positions[:, extra:].reshape(1, height, width, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    flat = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(positions.dtype)
    return torch.cat([positions[:, :extra], flat], dim=1)
