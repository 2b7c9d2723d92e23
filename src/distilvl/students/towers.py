"""Which model of a folder is the tower: all of it, the encoder of a T5, or CLIP's own image or text part."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from transformers import MODEL_MAPPING

from distilvl.errors import DistilvlError

_PARTS = {"image": ("vision_config", "image_config"), "text": ("text_config",)}
# The part that is not wanted, where transformers loads both or none: no layers, and as narrow as it gets.
_STUB = {
    "num_hidden_layers": 0,
    "hidden_size": 8,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 8,
    "max_position_embeddings": 8,
    "patch_size": 8,
    "image_size": 8,
    "num_patches": 1,
    "encoder_hidden_size": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Fields of backbone configs that name layers; they are derived anew after the number of layers changed.
_DERIVED_FIELDS = ("out_features", "out_indices", "stage_names")
_EXAMPLES = {"image": "ViT's or CLIP's", "text": "BERT's or CLIP's"}


def own_tower(config: Any, modality: str, source: str, layers: int | None = None) -> tuple[Any, Any]:
    """The config and the transformers class of the tower in a folder with this config.

    A model of images and texts (CLIP, SigLIP and their kind) gives its own part of `modality`: where transformers loads
    that part by itself, so do we; otherwise the other part stays as a stub without layers. Of an encoder with a decoder
    (T5) the encoder is taken.

    Args:
        config: of the folder; left as it is.
        modality: `image` or `text`.
        source: the folder, for messages.
        layers: how many of the tower's layers to keep; none keeps all.

    Raises:
        DistilvlError: nothing there can be a tower of `modality`, or layers that cannot be cut so.
    """
    name = _part(config, modality)
    if name is None or type(getattr(config, name)) in MODEL_MAPPING:
        config = config if name is None else getattr(config, name)
        model_class = _plain_class(config, modality, source)
        return config if layers is None else _checked_cut(config, layers, source, model_class), model_class
    model_class = _class_of(config)
    if not hasattr(model_class, f"get_{modality}_features"):
        raise _refused(config, modality, source, f"transformers cannot take its {modality} part out")
    config = copy.deepcopy(config)
    if layers is not None:
        setattr(config, name, _cut(getattr(config, name), layers, source))
    for other in config.sub_configs:
        if other != name:
            _make_stub(getattr(config, other))
    return config, model_class


def own_config(config: Any, modality: str) -> Any:
    """The config of the tower itself: `config`, but for a model that is loaded with a stub of the tower's partner."""
    name = _part(config, modality)
    return config if name is None else getattr(config, name)


def tower_method(model: Any, modality: str) -> str:
    """The method of `model` that gives the tower's outputs."""
    return "forward" if _part(model.config, modality) is None else f"get_{modality}_features"


def _part(config: Any, modality: str) -> str | None:
    parts = getattr(config, "sub_configs", None) or {}
    return next((name for name in _PARTS[modality] if name in parts), None)


def _class_of(config: Any) -> Any:
    """The class that `AutoModel` takes for `config`; none for a config that it does not know."""
    found: Any = MODEL_MAPPING.get(type(config), None)
    if isinstance(found, list | tuple):
        named = getattr(config, "architectures", None) or []
        found = next((kind for kind in found if kind.__name__ in named), found[0])
    return found


def _plain_class(config: Any, modality: str, source: str) -> Any:
    model_class = _class_of(config)
    if model_class is None:
        raise _refused(config, modality, source, "transformers has no plain model of this type")
    # A T5 that was saved without its decoder no longer says that it is one of an encoder and a decoder.
    encoder = getattr(transformers, model_class.__name__.removesuffix("Model") + "EncoderModel", None)
    if encoder is not None:
        return encoder
    if getattr(config, "is_encoder_decoder", False):
        reason = "it is an encoder with a decoder, and transformers has no class for the encoder alone"
        raise _refused(config, modality, source, reason)
    return model_class


def _checked_cut(config: Any, layers: int, source: str, model_class: Any) -> Any:
    cut = _cut(config, layers, source)
    shared = hasattr(config, "num_hidden_groups")  # ALBERT's layers are one and the same: fewer have as many weights
    if layers == config.num_hidden_layers or shared or _weights(model_class, cut) < _weights(model_class, config):
        return cut
    raise DistilvlError(
        f"the layers of tower {source!r} ({config.model_type}) stand in stages, which cannot be cut.",
        "Remove `layers` for this tower.",
    )


def _cut(config: Any, layers: int, source: str) -> Any:
    have = getattr(config, "num_hidden_layers", None)
    if have is None:
        raise DistilvlError(f"tower {source!r} has no count of layers to cut.", "Remove `layers` for this tower.")
    if layers > have:
        raise DistilvlError(f"tower {source!r} has {have} layers, {layers} were asked for.", "Ask for fewer.")
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    fields = {key: value for key, value in config.to_dict().items() if key not in _DERIVED_FIELDS}
    if "depths" not in fields:  # whose lists have an item a stage
        fields = {key: _first(value, layers, have) for key, value in fields.items()}
    try:
        return type(config).from_dict(fields)
    except Exception as error:  # anything that a config makes of fields that no longer agree
        raise DistilvlError(
            f"the layers of tower {source!r} ({config.model_type}) cannot be cut: {error}.",
            "Remove `layers` for this tower.",
        ) from error


def _first(value: Any, layers: int, have: int) -> Any:
    """Of a list with an item a layer, those of the first so many."""
    return value[:layers] if isinstance(value, list) and len(value) == have else value


def _weights(model_class: Any, config: Any) -> int:
    """How many weights a model has, without making them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


def _make_stub(config: Any) -> None:
    for name, value in _STUB.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, value)


def _refused(config: Any, modality: str, source: str, reason: str) -> DistilvlError:
    return DistilvlError(
        f"{source!r} (model_type {config.model_type}) cannot be the {modality} tower: {reason}.",
        f"Name a folder that holds an encoder of {modality}s, such as {_EXAMPLES[modality]}.",
    )
