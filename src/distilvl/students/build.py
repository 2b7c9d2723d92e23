"""Assemble a student: a Router with a text and an image route, each tower -> pooling -> head, then unit length.

    z^m = norm(FC_m(Tower_m(x)))                                            (eq. 3-4 of the paper)

Routes and modules are those of sentence-transformers, so the saved folder needs nothing of this package.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from typing import Any

import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Router, Transformer
from torch import nn

from distilvl.config import ImageTowerConfig, StudentConfig, TextTowerConfig
from distilvl.errors import DistilvlError
from distilvl.students.pretrained import first_line, new_model, pretrained_model, quiet_transformers
from distilvl.students.processors import image_processor, learn_tokenizer, pretrained_tokenizer
from distilvl.students.storage import load_student

HEAD_GAIN = 1.414  # of the Xavier-normal start of FC_m, as in the authors' code


def build_student(
    config: StudentConfig, width: int, captions: Collection[str] = (), *, device: str = "cpu"
) -> SentenceTransformer:
    """A student whose shared space has `width` dimensions.

    Args:
        config: towers, layers, image size; or the folder of a finished student to go on with.
        width: D, the teacher's width unless the config names another.
        captions: training captions, from which the vocabulary of a new text tower is learnt.
        device: where the weights are put.

    Raises:
        DistilvlError: a tower that cannot be loaded or built, or a finished student of another width.
    """
    if config.folder is not None:
        student = load_student(config.folder, device=device)
        have = student.get_embedding_dimension()
        if have != width:
            raise DistilvlError(
                f"student {config.folder} has width {have}, the teacher has {width}.",
                "Start from a student of the same width, or build a new one with a preset.",
            )
        return student
    text = _text_route(config.text, width, captions)
    image = _image_route(config.image, width)
    router = Router({"text": text, "image": image}, default_route="text")
    last = [Normalize()] if config.normalize else []
    return SentenceTransformer(modules=[router, *last], device=device)


def _image_route(config: ImageTowerConfig, width: int) -> list[Any]:
    pooler = config.pooling == "pooler"
    if config.model is not None:
        model = pretrained_model(config.model, config.layers, pooler=pooler)
    else:
        model = new_model(config.config, "student.image", pooler=pooler)
    processor = image_processor(config.model, config.size, model)
    return _route(model, processor, "image", config.pooling, width)


def _text_route(config: TextTowerConfig, width: int, captions: Collection[str]) -> list[Any]:
    pooler = config.pooling == "pooler"
    if config.model is not None:
        tokenizer = pretrained_tokenizer(config.model, config.max_length)
        model = pretrained_model(config.model, config.layers, pooler=pooler)
    else:
        tokenizer = learn_tokenizer(captions, config.vocabulary, config.max_length)
        fields = {**(config.config or {}), "vocab_size": len(tokenizer)}
        model = new_model(fields if config.config else None, "student.text", pooler=pooler)
    return _route(model, tokenizer, "text", config.pooling, width)


def _route(model: Any, processor: Any, modality: str, pooling: str, width: int) -> list[Any]:
    """Tower, pooling (the tower's own for `pooler`) and head."""
    own = pooling == "pooler"
    output, feature = ("pooler_output", "sentence_embedding") if own else ("last_hidden_state", "token_embeddings")
    tower = _as_module(model, processor, modality, output, feature)
    shape = _output_shape(tower, modality, pooling)
    hidden = shape[-1]
    if own and len(shape) == 2:
        return [tower, _head(hidden, width)]
    if own:
        # ResNet and its kind put out what they pooled as a map of one position: its mean is that position.
        tower.module_output_name, pooling = "token_embeddings", "mean"
    return [tower, Pooling(hidden, pooling), _head(hidden, width)]


def _output_shape(tower: Transformer, modality: str, pooling: str) -> tuple[int, ...]:
    """(1, width) or (1, positions, width), by trying: some configs name another width, or none."""
    item = Image.new("RGB", (8, 8)) if modality == "image" else "a"
    try:
        with torch.no_grad():
            features = tower.eval()(tower.preprocess([item]))
        return tuple(features[tower.module_output_name].shape)
    except Exception as error:  # anything that sizes which do not fit make a model raise
        kind = tower.model.config.model_type
        raise DistilvlError(
            f"the {modality} tower (model_type {kind}) does not run with pooling {pooling}: {first_line(error)}.",
            f"Choose another student.{modality}.pooling or tower, or correct its config.",
        ) from error


def _as_module(model: Any, processor: Any, modality: str, output: str, feature: str) -> Transformer:
    """The transformers model and its processor as a sentence-transformers module, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        # The folder is this process's own; of several, transformers would let the first one write only.
        model.should_save_on_this_rank = lambda _: True
        model.save_pretrained(folder)
        del model.should_save_on_this_rank
        processor.save_pretrained(folder)
        module: Transformer = Transformer(
            folder,
            model_kwargs=pooling_layer_kwargs(model),
            modality_config={modality: {"method": "forward", "method_output_name": output}},
            module_output_name=feature,
        )
        return module


def pooling_layer_kwargs(model: Any) -> dict[str, bool]:
    """Arguments that load `model` again without the pooler it does not have."""
    return {"add_pooling_layer": False} if hasattr(model, "pooler") and model.pooler is None else {}


def _head(hidden: int, width: int) -> Dense:
    head = Dense(hidden, width, activation_function=None)
    nn.init.xavier_normal_(head.linear.weight, gain=HEAD_GAIN)
    nn.init.zeros_(head.linear.bias)
    return head
