"""Dual encoders of transformers as teachers: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, BLIP."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BlipForImageTextRetrieval
from transformers.utils.hub import cached_file

from distilvl.errors import DistilvlError
from distilvl.teachers.base import loading, name_and_revision
from distilvl.teachers.torch_teacher import DEFAULTS, Inputs, RunOptions, TorchTeacher


@dataclass(frozen=True)
class TextRule:
    """How texts reach a family of models."""

    limit: int | None = None  # tokens, where it was trained with fewer than the text tower has positions
    pad_to_limit: bool = False  # every text: the model was trained so and attends to padding


# Limits in training: ALIGN 64 (its processor), AltCLIP 77 (FlagAI), Chinese-CLIP 52 (cn_clip), BLIP 35 (its retrieval
# code). CLIP's 77 and SigLIP's 64 are the number of their positions.
FAMILIES = {
    "clip": TextRule(),
    "siglip": TextRule(pad_to_limit=True),
    "siglip2": TextRule(pad_to_limit=True),
    "align": TextRule(limit=64),
    "altclip": TextRule(limit=77),
    "chinese_clip": TextRule(limit=52),
    "blip": TextRule(limit=35),
}

_REMEDY = "Give a folder that save_pretrained of a model and its processor wrote (safetensors), or a hub id of one."


def is_dual_encoder(source: str) -> bool:
    """Whether `source`, a folder or hub id, holds a model of `FAMILIES` (and is no SentenceTransformer)."""
    return _json_of(source, "modules.json") is None and _model_type(source) in FAMILIES


def _model_type(source: str) -> object:
    config = _json_of(source, "config.json")
    return config.get("model_type") if isinstance(config, dict) else None


def _json_of(source: str, name: str) -> Any:
    """A JSON file of a folder or a hub repository; None without one, or without a connection."""
    why_not = ("gated_repo", "missing_entries", "connection_errors")
    missing_is_none = {f"_raise_exceptions_for_{reason}": False for reason in why_not}
    try:
        path = str(Path(source, name)) if Path(source).is_dir() else cached_file(source, name, **missing_is_none)
        return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class TransformersTeacher(TorchTeacher):
    """A dual encoder from a folder or the hub; no code of its repository is run, and no pickle is read.

    Its embeddings are those of `get_image_features` and `get_text_features`; BLIP's are the projections that its
    retrieval head compares (not L2-normalised yet).
    """

    preprocessing = "by the model's own image processor (PIL) and tokenizer"

    def __init__(self, source: str, options: RunOptions = DEFAULTS) -> None:
        family = str(_model_type(source))
        network = _load_network(source, BlipForImageTextRetrieval if family == "blip" else AutoModel)
        # Never torchvision's, whose resizing differs.
        self._processor = _load_part(AutoImageProcessor, "image processor", source, backend="pil")
        self._tokenizer = _load_part(AutoTokenizer, "tokenizer", source)
        if self._tokenizer.pad_token is None:
            raise DistilvlError(f"the tokenizer of {source} has no padding token.", "Set pad_token and save it again.")
        self._text_rule = FAMILIES[family]
        self.max_length = _text_limit(network, self._tokenizer, self._text_rule)
        encode = network.text_encoder.forward if family == "blip" else network.get_text_features
        self._text_inputs = set(inspect.signature(encode).parameters)
        super().__init__(network, *name_and_revision(source), options)

    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        """What the image processor makes of RGB images."""
        return dict(self._processor(images=list(images), return_tensors="pt"))

    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        """Token numbers, and what else the tokenizer gives that the model takes."""
        padding = "max_length" if self._text_rule.pad_to_limit else "longest"
        fit = {"padding": padding, "truncation": True, "max_length": self.max_length}
        tokens = self._tokenizer(list(texts), return_tensors="pt", **fit)
        return {name: tensor for name, tensor in tokens.items() if name in self._text_inputs}

    def image_features(self, inputs: Inputs) -> Tensor:
        """Shape (n, D)."""
        network: Any = self._network
        if isinstance(network, BlipForImageTextRetrieval):
            return network.vision_proj(network.vision_model(**inputs).last_hidden_state[:, 0])  # type: ignore[no-any-return]
        return network.get_image_features(**inputs).pooler_output  # type: ignore[no-any-return]

    def text_features(self, inputs: Inputs) -> Tensor:
        """Shape (n, D)."""
        network: Any = self._network
        if isinstance(network, BlipForImageTextRetrieval):
            return network.text_proj(network.text_encoder(**inputs).last_hidden_state[:, 0])  # type: ignore[no-any-return]
        return network.get_text_features(**inputs).pooler_output  # type: ignore[no-any-return]


def _text_limit(network: Any, tokenizer: Any, rule: TextRule) -> int:
    config = network.config.text_config
    positions: int = config.max_position_embeddings
    if config.model_type == "altclip_text_model":
        # RoBERTa's positions start behind that of the padding token.
        positions -= config.pad_token_id + 1
    return min(positions, int(tokenizer.model_max_length), rule.limit or positions)


def _load_network(source: str, kind: Any) -> Any:
    safely = {"use_safetensors": True, "output_loading_info": True}
    network, report = _load_part(kind, "model", source, dtype=torch.float32, **safely)
    lacking = sorted(report["missing_keys"])
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        what = f"{source} is no dual encoder with all its weights: it lacks {', '.join(lacking[:3])}{more}."
        raise DistilvlError(what, "For BLIP, give a model of image-text retrieval (itm).")
    return network


def _load_part(kind: Any, what: str, source: str, **options: Any) -> Any:
    with loading(f"the {what} of {source} cannot be loaded", _REMEDY):
        return kind.from_pretrained(source, trust_remote_code=False, **options)
