"""Towers from transformers: pretrained and cut to the first layers, or new with random weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from distilvl.errors import DistilvlError

# Fields of backbone configs that name layers; they are derived anew after the number of layers changed.
_DERIVED_FIELDS = ("out_features", "out_indices", "stage_names")


def pretrained_model(source: str, layers: int | None, *, pooler: bool) -> PreTrainedModel:
    """The model at `source` (id or folder) in float32, its first `layers` layers, with or without its pooler.

    Raises:
        DistilvlError: nothing loadable at `source`, or fewer layers there than asked for.
    """
    config = _read_config(source)
    if layers is not None:
        config = _cut(config, layers, source)
    with quiet_transformers():
        try:
            model = AutoModel.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                **_pooler_kwargs(config, pooler),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DistilvlError(f"cannot load tower {source!r}: {first_line(error)}.", _REMEDY) from error
    return model  # type: ignore[no-any-return]


def new_model(fields: dict[str, Any] | None, section: str, *, pooler: bool) -> PreTrainedModel:
    """A model with random weights from config fields, `model_type` among them.

    Raises:
        DistilvlError: no fields, an unknown `model_type`, or fields that the model refuses.
    """
    if not fields or "model_type" not in fields:
        raise DistilvlError(
            f"{section} names neither a model nor a config with a model_type.",
            f"Set {section}.model to a transformers id or folder.",
        )
    rest = {key: value for key, value in fields.items() if key != "model_type"}
    try:
        config = AutoConfig.for_model(fields["model_type"], **rest)
        return AutoModel.from_config(config, **_pooler_kwargs(config, pooler))  # type: ignore[no-any-return]
    except Exception as error:  # anything that fields of a wrong kind or size make a model raise
        raise DistilvlError(f"{section}.config is refused: {first_line(error)}.", "Correct its fields.") from error


_REMEDY = "Give a transformers folder with safetensors weights, or an id that the hub (or its local cache) holds."


def _read_config(source: str) -> Any:
    if _looks_local(source) and not Path(source).is_dir():
        raise DistilvlError(f"tower folder {source!r} does not exist.", _REMEDY)
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise DistilvlError(f"cannot load tower {source!r}: {first_line(error)}.", _REMEDY) from error


def _looks_local(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _cut(config: Any, layers: int, source: str) -> Any:
    have = getattr(config, "num_hidden_layers", None)
    if have is None:
        raise DistilvlError(f"tower {source!r} has no count of layers to cut.", "Remove `layers` for this tower.")
    if layers > have:
        raise DistilvlError(f"tower {source!r} has {have} layers, {layers} were asked for.", "Ask for fewer.")
    config.num_hidden_layers = layers
    fields = {key: value for key, value in config.to_dict().items() if key not in _DERIVED_FIELDS}
    return type(config).from_dict(fields)


def _pooler_kwargs(config: Any, pooler: bool) -> dict[str, bool]:
    """`add_pooling_layer=False` for models that know it, when the pooler would go unused."""
    if type(config) not in MODEL_MAPPING:
        return {}
    model_class: Any = MODEL_MAPPING[type(config)]
    parameters = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if not pooler and "add_pooling_layer" in parameters else {}


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the next one where it ends in a colon, without a full stop."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
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
