"""Towers from transformers: pretrained and cut to the first layers, or new with random weights."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from distilvl.errors import DistilvlError
from distilvl.students.towers import own_tower

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
