"""Fit a tower's learnt positions to another image size, once, when the student is built."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from distilvl.errors import DistilvlError
from distilvl.students.towers import own_config, own_tower

logger = logging.getLogger("distilvl")

_OWN_NAMES = {"image": ("vision", "visual", "image"), "text": ("text",)}
"""How the weights of a model of images and texts begin that belong to one of them."""


def pretrained_model(source: str, layers: int | None, *, pooler: bool, modality: str) -> PreTrainedModel:
    """The tower of `modality` at `source` (id or folder) in float32: its first `layers` layers, maybe without a pooler.

    Raises:
        DistilvlError: nothing loadable at `source`, nothing that can be such a tower, weights that are not its own, or
            fewer layers than asked for.
    """
    whole = _read_config(source)
    config, model_class = own_tower(whole, modality, source, layers)
    load = partial(_load, source, config, model_class, modality, pooler)
    model, missing = load()
    if type(config) is not type(whole) and _is_most(missing, model):
        # A part of a model keeps its weights under the part's name, which not every class looks for.
        found, missing = load(key_mapping={r"^(vision|image|text)_model\.": ""})
        # The library would undo such a mapping when it saves.
        model.load_state_dict(found.state_dict())
    if _is_most(missing, model):
        raise DistilvlError(
            f"tower {source!r} holds no weights for {type(model).__name__}, which its config.json names.", _REMEDY
        )
    if missing:
        names = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
        logger.warning("tower %s holds no weights for %s: they begin at random", source, names)
    return model


def _load(
    source: str, config: Any, model_class: Any, modality: str, pooler: bool, **more: Any
) -> tuple[PreTrainedModel, list[str]]:
    """The model, and which of its weights the folder does not hold."""
    # Of a part with a stub for its partner, the partner's weights do not fit, and are not wanted.
    stubbed = bool(getattr(config, "sub_configs", None))
    with quiet_transformers():
        try:
            model, info = model_class.from_pretrained(
                source,
                config=copy.deepcopy(config),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=stubbed,
                **_pooler_kwargs(model_class, pooler),
                **more,
            )
        except Exception as error:  # anything that a damaged or an unusual folder makes the libraries raise
            raise DistilvlError(f"cannot load tower {source!r}: {first_line(error)}.", _REMEDY) from error
    own = [name for name, *_ in info["mismatched_keys"] if name.startswith(_OWN_NAMES[modality])]
    return model, sorted({*info["missing_keys"], *own})


def _is_most(names: Sequence[str], model: PreTrainedModel) -> bool:
    tensors = model.state_dict()
    count = sum(tensors[name].numel() for name in names if name in tensors)
    return bool(2 * count > sum(tensor.numel() for tensor in tensors.values()))


def new_model(fields: dict[str, Any] | None, *, pooler: bool, modality: str) -> PreTrainedModel:
    """A tower with random weights from config fields, `model_type` among them.

    Raises:
        DistilvlError: no fields, an unknown `model_type`, or fields that the model refuses.
    """
    section = f"student.{modality}"
    if not fields or "model_type" not in fields:
        raise DistilvlError(
            f"{section} names neither a model nor a config with a model_type.",
            f"Set {section}.model to a transformers id or folder.",
        )
    rest = {key: value for key, value in fields.items() if key not in ("model_type", "dtype", "torch_dtype")}
    try:
        with quiet_transformers():
            whole = AutoConfig.for_model(fields["model_type"], **rest)
            config, model_class = own_tower(whole, modality, f"{section}.config")
            return model_class._from_config(config, dtype=torch.float32, **_pooler_kwargs(model_class, pooler))  # type: ignore[no-any-return]
    except DistilvlError:
        raise
    except Exception as error:  # anything that fields of a wrong kind or size make a model raise
        raise DistilvlError(f"{section}.config is refused: {first_line(error)}.", "Correct its fields.") from error


_REMEDY = "Give a transformers folder with safetensors weights, or an id that the hub (or its local cache) holds."


def _read_config(source: str) -> Any:
    if _looks_local(source) and not Path(source).is_dir():
        raise DistilvlError(f"tower folder {source!r} does not exist.", _REMEDY)
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(source)
    except Exception as error:  # the libraries raise anything from OSError to KeyError
        raise DistilvlError(f"cannot load tower {source!r}: {first_line(error)}.", _REMEDY) from error


def _looks_local(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _pooler_kwargs(model_class: Any, pooler: bool) -> dict[str, bool]:
    """`add_pooling_layer=False` for models that know it, when the pooler would go unused."""
    parameters = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if not pooler and "add_pooling_layer" in parameters else {}


def pooling_layer_kwargs(model: Any) -> dict[str, bool]:
    """Arguments that make `model` again without the pooler it does not have."""
    return {"add_pooling_layer": False} if hasattr(model, "pooler") and model.pooler is None else {}


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the next one where it ends in a colon, without a full stop."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    if "ignore_mismatched_sizes" in lines[0]:  # it points to a report, which is not shown
        return "its weights have other shapes than its config.json says"
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without load reports: that cut layers go unused is meant."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


_MOST_EXTRA = 2  # rows beside the grid: CLS, and DeiT's distillation token
_BIAS_TABLE = "relative_position_bias_table"


def fit_positions(model: Any, size: int) -> Any:
    """`model` for pictures of `size` x `size` pixels; itself where it is made for them already, or for any size.

    Whatever depends on the size is made anew by the model's own class. Learnt positions are resampled: a grid (of ViT
    and its kind, CLIP, SigLIP) and a table of relative positions (BEiT).

    Raises:
        DistilvlError: the patch size does not divide `size`, or weights that belong to one size only.
    """
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
        raise DistilvlError(
            f"the image tower's weights {name} belong to pictures of {had} pixels and cannot be resampled.",
            "Leave student.image.size unset (null), or choose another tower.",
        )
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


def resample_grid(positions: Tensor, side: int, old: tuple[int, int] | None = None) -> Tensor:
    """(1, extra + h*w, C) position embeddings to (1, extra + side*side, C), bicubic with antialiasing.

    The leading `extra` rows (CLS, distillation token) are kept as they are.

    Args:
        positions: learnt ones.
        side: of the new grid.
        old: h and w; without, the largest square.
    """
    total = positions.shape[1]
    height, width = old or (isqrt(total), isqrt(total))
    extra = total - height * width
    if (height, width) == (side, side):
        return positions.clone()
    grid = positions[:, extra:].reshape(1, height, width, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    flat = grid.permute(0, 2, 3, 1).reshape(1, side * side, -1).to(positions.dtype)
    return torch.cat([positions[:, :extra], flat], dim=1)
