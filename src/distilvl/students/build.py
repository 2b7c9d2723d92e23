"""Assemble a student of sentence-transformers' modules: a Router with a text and an image route, then L2 normalisation.

z^m = norm(FC_m(Tower_m(x)))                                            (eq. 3-4 of the paper)
"""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer
from torch import nn

from distilvl.config import (
    ImageTowerConfig,
    StaticTextConfig,
    StudentConfig,
    TextTowerConfig,
    TransformerTextConfig,
)
from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_texts
from distilvl.recipes import load_config
from distilvl.students.depths import joined_depths
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.heads import head_of
from distilvl.students.positions import fit_positions
from distilvl.students.processors import (
    image_processor,
    learn_tokenizer,
    output_size,
    pretrained_tokenizer,
    processor_kwargs,
)
from distilvl.students.stages import PYRAMID, all_stages, staged
from distilvl.students.static import PROMPTS, static_route
from distilvl.students.storage import load_student
from distilvl.students.timm_towers import TIMM_TYPE
from distilvl.students.towers import (
    loading,
    new_model,
    own_config,
    pooling_layer_kwargs,
    pretrained_model,
    quiet_transformers,
    tower_method,
)
from distilvl.students.trial import try_gradients, try_student
from distilvl.students.vocabulary import trim_vocabulary

TOWER_INPUTS = {"image": ("pixel_values",), "text": ("input_ids", "attention_mask")}  # what training gives a tower
HEAD_GAIN = 1.414  # of the Xavier-normal start of FC_m, as in the authors' code


def build_student(
    student: StudentConfig | str | Path,
    dim: int,
    captions: Collection[str] = (),
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
) -> SentenceTransformer:
    """A student that is not trained yet. One that is named, not configured, is tried too (`distilvl.students.trial`).

    Args:
        student: a preset (`paper`, `small`, `tiny`, `demo`), a YAML file, the folder of a finished student to go on
            with, or a config.
        dim: D, the embedding dimension.
        captions: what a new text tower (`demo`'s, or a static one) learns its vocabulary from, and `trim` cuts a
            pretrained one's to.
        overrides: `image.layers=6` and the like, keys of the student section; for a student that is named.

    Raises:
        DistilvlError: unknown preset or key, a tower that cannot be loaded, built or trained, or another dimension.
    """
    if isinstance(student, StudentConfig):
        return _built(student, dim, captions, device)
    prefixed = [f"student.{item}" for item in list_of_texts(overrides)]
    config = load_config("paper", student=str(student), overrides=prefixed).student
    model = _built(config, dim, list_of_texts(captions), device)
    encoder = DualEncoder(model)
    try_student(encoder, reload=config.folder is None)
    try_gradients(encoder)
    return model


def _built(config: StudentConfig, dim: int, captions: Collection[str], device: str) -> SentenceTransformer:
    if config.folder is not None:
        student = load_student(config.folder, device=device)
        have = student.get_embedding_dimension()
        if have != dim:
            remedy = "Start from a student of the same dimension, or build a new one with a preset."
            raise DistilvlError(f"student {config.folder} has dimension {have}, the teacher has {dim}.", remedy)
        return student
    last = [Normalize()] if config.normalize else []
    prompts: dict[str, Any] = {}
    if isinstance(config.text, StaticTextConfig):
        prompts = {"prompts": PROMPTS, "default_prompt_name": "text"}
    with quiet_transformers():
        routes = {"text": _text_route(config.text, dim, captions), "image": _image_route(config.image, dim)}
        return SentenceTransformer(modules=[Router(routes, default_route="text"), *last], device=device, **prompts)


def most_stages(config: ImageTowerConfig, most: int) -> list[int] | None:
    """The last `most` stages that `pooling: stages` can join in this CNN, or as many as it can; none for a ViT."""
    model = _image_model(config)
    return all_stages(model, most) if model.config.model_type == TIMM_TYPE else None


def _image_model(config: ImageTowerConfig) -> Any:
    pooler = config.pooling == "pooler"
    if config.model is not None:
        return pretrained_model(config.model, config.layers, pooler=pooler, modality="image")
    return new_model(config.config, pooler=pooler, modality="image")


def _image_route(config: ImageTowerConfig, dim: int) -> list[Any]:
    model = _image_model(config)
    processor = image_processor(config.model, config.size, model)
    if config.size is not None:
        model = fit_positions(model, config.size)
    if config.pooling == "stages":
        return _stages_route(model, processor, config, dim)
    return _route(model, processor, "image", config.pooling, dim)


def _stages_route(model: Any, processor: Any, config: ImageTowerConfig, dim: int) -> list[Any]:
    """Tower, head and pooling: `distilvl.students.stages` and `distilvl.students.depths`."""
    side = output_size(processor)
    if side is None:
        what = f"the image processor {type(processor).__name__} gives pictures of different sizes."
        raise DistilvlError(what, "Set student.image.size.")
    is_timm = model.config.model_type == TIMM_TYPE
    made = staged(model, config.stages, dim, side) if is_timm else joined_depths(model, config.stages, dim, side)
    output = PYRAMID if is_timm else "pooler_output"
    modules = [_as_module(made, processor, "image", output, "token_embeddings"), Pooling(dim, "mean")]
    head = head_of(modules)
    weight = nn.init.xavier_normal_(torch.empty(dim, head.in_features), gain=HEAD_GAIN)
    head.set(weight, torch.zeros(dim))
    return modules


def _text_route(config: TextTowerConfig, dim: int, captions: Collection[str]) -> list[Any]:
    if isinstance(config, StaticTextConfig):
        return static_route(config, dim, captions, HEAD_GAIN)
    assert isinstance(config, TransformerTextConfig)  # the other kind
    pooler = config.pooling == "pooler"
    if config.model is not None:
        tokenizer = pretrained_tokenizer(config.model, config.max_length)
        model = pretrained_model(config.model, config.layers, pooler=pooler, modality="text")
        if config.vocabulary == "trim":
            model, tokenizer = trim_vocabulary(model, tokenizer, captions)
    else:
        assert isinstance(config.vocabulary, int)  # the config sees to it
        tokenizer = learn_tokenizer(captions, config.vocabulary, config.max_length)
        fields = {**(config.config or {}), "vocab_size": len(tokenizer)}
        model = new_model(fields if config.config else None, pooler=pooler, modality="text")
    route = _route(model, tokenizer, "text", config.pooling, dim)
    # The library lowers it in silence where the tower has fewer positions; `distilvl.students.trial` says so instead.
    route[0].tokenizer.model_max_length = config.max_length
    return route


def _route(model: Any, processor: Any, modality: str, pooling: str, dim: int) -> list[Any]:
    """Tower, pooling (the tower's own for `pooler`) and head."""
    own = pooling == "pooler"
    output, feature = ("pooler_output", "sentence_embedding") if own else ("last_hidden_state", "token_embeddings")
    tower = _as_module(model, processor, modality, output, feature)
    shape = _output_shape(tower, modality, pooling, output)
    if own and len(shape) == 2:
        return [tower, _head(shape[1], dim)]
    if own:
        # ResNet and its kind put out what they pooled as a map of one position: its mean is that position.
        tower.module_output_name, pooling = "token_embeddings", "mean"
    hidden = shape[1] if len(shape) == 4 else shape[2]
    return [tower, Pooling(hidden, pooling), _head(hidden, dim)]


def _output_shape(tower: Transformer, modality: str, pooling: str, output: str) -> tuple[int, ...]:
    """(1, C), (1, positions, C) or (1, C, height, width), by trying: some configs name another C."""
    item = Image.new("RGB", (8, 8)) if modality == "image" else "a"
    it, key = f"the {modality} tower (model_type {tower.model.config.model_type})", f"student.{modality}.pooling"
    remedy = f"Choose another {key} or tower, or correct its config."
    with loading(f"{it} does not run with pooling {pooling}", remedy), torch.no_grad():
        inputs = tower.preprocess([item])
        given = {name: inputs[name] for name in TOWER_INPUTS[modality]}
        outputs = getattr(tower.eval().model, tower_method(tower.model, modality))(**given, return_dict=True)
    found = getattr(outputs, output, None)
    if not isinstance(found, torch.Tensor):
        others = "mean or cls" if output == "pooler_output" else "pooler"
        what = f"{it} gives no {output}, which pooling {pooling} needs."
        raise DistilvlError(what, f"Set {key} to {others}, or choose another tower.")
    if pooling == "cls" and found.ndim == 4:
        what = f"{it} puts out a map: its first position is a corner of the picture."
        raise DistilvlError(what, f"Set {key} to pooler or mean.")
    return tuple(found.shape)


def _as_module(model: Any, processor: Any, modality: str, output: str | list[Any], feature: str) -> Transformer:
    """The transformers model and its processor as a sentence-transformers module, by way of a folder."""
    processor._processor_class = None  # of a processor for images and texts, which is not there
    if own_config(model.config, modality) is not model.config:
        # The library would look for such a processor beside a model of both.
        model.config.processor_class = "AutoImageProcessor" if modality == "image" else "AutoTokenizer"
    modality_config = {modality: {"method": tower_method(model, modality), "method_output_name": output}}
    what = f"the {modality} tower (model_type {model.config.model_type}) cannot be saved and loaded again"
    with tempfile.TemporaryDirectory() as folder, loading(what, "Choose another tower."):
        # The folder is this process's own; of several, transformers would let the first one write only.
        model.should_save_on_this_rank = lambda _: True
        model.save_pretrained(folder)
        del model.should_save_on_this_rank
        processor.save_pretrained(folder)
        kwargs = {"model_kwargs": pooling_layer_kwargs(model), "modality_config": modality_config}
        kwargs["processor_kwargs"] = processor_kwargs(model)
        return Transformer(folder, module_output_name=feature, **kwargs)  # type: ignore[no-any-return]


def _head(hidden: int, dim: int) -> Dense:
    head = Dense(hidden, dim, activation_function=None)
    nn.init.xavier_normal_(head.linear.weight, gain=HEAD_GAIN)
    nn.init.zeros_(head.linear.bias)
    return head
