"""The transformers model that becomes a tower: loaded or new, whole or cut, or the part of a CLIP or T5 that is one."""

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging
from transformers.utils.generic import is_timm_local_checkpoint

from distilvl.errors import DistilvlError
from distilvl.io.hub import like_it, look_for_hub, may_be_had
from distilvl.students.timm_towers import TIMM_TYPE, require_timm

logger = logging.getLogger("distilvl")

_PARTS = {"image": ("vision_config", "image_config"), "text": ("text_config",)}
# The part that is not wanted, where transformers loads both or none: no layers, and as narrow as it gets.
_STUB = {
    "num_hidden_layers": 0, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 8,
    "max_position_embeddings": 8, "patch_size": 8, "image_size": 8, "num_patches": 1, "encoder_hidden_size": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
# Fields of backbone configs that name layers; they are derived anew after the number of layers changed.
_DERIVED_FIELDS = ("out_features", "out_indices", "stage_names")
_EXAMPLES = {"image": "ViT's or CLIP's", "text": "BERT's or CLIP's"}
_WHOLE = "Remove `layers` for this tower."
_REMEDY = "Give a transformers folder with safetensors weights, or an id that the hub (or its local cache) holds."
# How the weights of a model of images and texts begin that belong to one of them.
_OWN_NAMES = {"image": ("vision", "visual", "image"), "text": ("text",)}


def pretrained_model(source: str, layers: int | None, *, pooler: bool, modality: str) -> PreTrainedModel:
    """The tower of `modality` at `source` (id or folder) in float32: its first `layers` layers, maybe without a pooler.

    `DistilvlError` where nothing can be such a tower, for weights that are not its own, or too few layers.
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
        what = f"tower {source!r} holds no weights for {type(model).__name__}, which its config.json names."
        raise DistilvlError(what, _REMEDY)
    if missing:
        names = f"{missing[0]} and {len(missing) - 1} more" if len(missing) > 1 else missing[0]
        logger.warning("tower %s holds no weights for %s: they begin at random", source, names)
    return model


def _load(
    source: str, config: Any, model_class: Any, modality: str, pooler: bool, **more: Any
) -> tuple[PreTrainedModel, list[str]]:
    """The model, and which of its weights the folder does not hold."""
    # Of a part with a stub for its partner, the partner's weights do not fit, and are not wanted.
    more |= {"ignore_mismatched_sizes": bool(getattr(config, "sub_configs", None)), "use_safetensors": True}
    more |= _pooler_kwargs(model_class, pooler)
    with loading(f"cannot load tower {source!r}", _REMEDY):
        model, info = model_class.from_pretrained(
            source, config=copy.deepcopy(config), dtype=torch.float32, output_loading_info=True, **more
        )
    own = [name for name, *_ in info["mismatched_keys"] if name.startswith(_OWN_NAMES[modality])]
    return model, sorted({*info["missing_keys"], *own})


def _is_most(names: Sequence[str], model: PreTrainedModel) -> bool:
    tensors = model.state_dict()
    count = sum(tensors[name].numel() for name in names if name in tensors)
    return bool(2 * count > sum(tensor.numel() for tensor in tensors.values()))


def new_model(fields: dict[str, Any] | None, *, pooler: bool, modality: str) -> PreTrainedModel:
    """A tower with random weights from config fields, `model_type` among them; `DistilvlError` if they are refused."""
    section = f"student.{modality}"
    if not fields or "model_type" not in fields:
        remedy = f"Set {section}.model to a transformers id or folder."
        raise DistilvlError(f"{section} names neither a model nor a config with a model_type.", remedy)
    if fields["model_type"] == TIMM_TYPE:
        require_timm()
    rest = {key: value for key, value in fields.items() if key not in ("model_type", "dtype", "torch_dtype")}
    with loading(f"{section}.config is refused", "Correct its fields."):
        whole = AutoConfig.for_model(fields["model_type"], **rest)
        config, model_class = own_tower(whole, modality, f"{section}.config")
        return model_class._from_config(config, dtype=torch.float32, **_pooler_kwargs(model_class, pooler))  # type: ignore[no-any-return]


def _read_config(source: str) -> Any:
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_local and not Path(source).is_dir():
        raise DistilvlError(f"tower folder {source!r} does not exist.", f"{like_it(source)} {_REMEDY}".strip())
    if source.startswith("timm/") or is_timm_local_checkpoint(source):
        require_timm()
    if not Path(source).is_dir():
        look_for_hub()
        if not may_be_had(source):
            what = f"cannot load tower {source!r}: it is no folder here, and the hub is not reached."
            raise DistilvlError(what, f"{like_it(source)} {_REMEDY}".strip())
    with loading(f"cannot load tower {source!r}", _REMEDY):
        config = AutoConfig.from_pretrained(source)
    if config.model_type == TIMM_TYPE:
        require_timm()
    return config


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
    """Without load reports: that cut layers go unused is meant, and so is a static tower's prompt."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    modules = logging.getLogger("sentence_transformers")
    level = modules.level
    modules.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        modules.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def loading(what: str, remedy: str) -> Iterator[None]:
    """Quiet libraries, which raise anything from OSError to KeyError: it becomes "`what`: its first line"."""
    try:
        with quiet_transformers():
            yield
    except DistilvlError:
        raise
    except Exception as error:
        raise DistilvlError(f"{what}: {first_line(error)}.", remedy) from error


def own_tower(config: Any, modality: str, source: str, layers: int | None = None) -> tuple[Any, Any]:
    """The config and the transformers class of the tower in a folder with this config, of its first `layers` layers.

    A model of images and texts (CLIP, SigLIP and their kind) gives its own part of `modality`: where transformers loads
    that part by itself, so do we; otherwise the other part stays as a stub without layers. Of an encoder with a decoder
    (T5) the encoder is taken. `DistilvlError` where nothing can be such a tower, or its layers cannot be cut so.
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
        stub = getattr(config, other)
        for field in _STUB if other != name else ():
            if isinstance(getattr(stub, field, None), int):
                setattr(stub, field, _STUB[field])
    return config, model_class


def own_config(config: Any, modality: str) -> Any:
    """The config of the tower itself: `config`, but for a model that is loaded with a stub of the tower's partner."""
    name = _part(config, modality)
    return config if name is None else getattr(config, name)


def model_type(tower: Any, modality: str | None = None) -> str:
    """What transformers calls the model of a tower, or of its part for `modality`; `static` for a table of rows."""
    model = getattr(tower, "model", None)
    if model is None:
        return "static"
    return str((model.config if modality is None else own_config(model.config, modality)).model_type)


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
    what = f"the layers of tower {source!r} ({config.model_type}) stand in stages, which cannot be cut."
    raise DistilvlError(what, _WHOLE)


def _cut(config: Any, layers: int, source: str) -> Any:
    have = getattr(config, "num_hidden_layers", None)
    if have is None:
        raise DistilvlError(f"tower {source!r} has no count of layers to cut.", _WHOLE)
    if layers > have:
        raise DistilvlError(f"tower {source!r} has {have} layers, {layers} were asked for.", "Ask for fewer.")
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    fields = {key: value for key, value in config.to_dict().items() if key not in _DERIVED_FIELDS}
    if "depths" not in fields:  # whose lists have an item a stage
        for key, value in fields.items():
            fields[key] = value[:layers] if isinstance(value, list) and len(value) == have else value
    try:
        return type(config).from_dict(fields)
    except Exception as error:  # anything that a config makes of fields that no longer agree
        what = f"the layers of tower {source!r} ({config.model_type}) cannot be cut: {error}."
        raise DistilvlError(what, _WHOLE) from error


def _weights(model_class: Any, config: Any) -> int:
    """How many weights a model has, without making them."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


def _refused(config: Any, modality: str, source: str, reason: str) -> DistilvlError:
    what = f"{source!r} (model_type {config.model_type}) cannot be the {modality} tower: {reason}."
    return DistilvlError(what, f"Name a folder that holds an encoder of {modality}s, such as {_EXAMPLES[modality]}.")
