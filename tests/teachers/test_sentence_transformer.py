from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers import Teacher

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "square"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def text_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **SMALL)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(text_tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image_tower = tmp_path_factory.mktemp("image")
    ViTModel(ViTConfig(image_size=16, patch_size=8, **SMALL)).save_pretrained(image_tower)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(image_tower)
    routes = {
        "text": [Transformer(str(text_tower)), Pooling(16)],
        "image": [Transformer(str(image_tower)), Pooling(16)],
    }
    router = Router(routes, route_mappings={(None, "text"): "text", (None, "image"): "image"})
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder))
    return folder


def test_rows_are_those_of_encode(model: Path):
    teacher = load_teacher(str(model))
    assert isinstance(teacher, Teacher)
    assert (teacher.name, teacher.dim) == ("tiny-clip", 16)
    plain = SentenceTransformer(str(model), device="cpu")
    images = [Image.new("RGB", (9, 9), "blue"), Image.new("RGB", (30, 20), "red")]
    texts = ["a red square", "blue"]
    np.testing.assert_allclose(teacher.encode_images(images), plain.encode(images), atol=1e-6)
    np.testing.assert_allclose(teacher.encode_texts(texts), plain.encode(texts), atol=1e-6)
    assert teacher.encode_texts(texts).dtype == np.float32
    assert teacher.num_parameters == sum(p.numel() for p in plain.parameters())


def test_a_caption_that_looks_like_an_address_is_text(model: Path):
    teacher = load_teacher(str(model))
    rows = teacher.encode_texts(["http://example.invalid/a.jpg", "a red square"])
    assert rows.shape == (2, 16)


def test_revision_follows_the_weights(model: Path, tmp_path: Path):
    first = load_teacher(str(model)).revision
    assert load_teacher(str(model)).revision == first
    changed = SentenceTransformer(str(model), device="cpu")
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    changed.save_pretrained(str(tmp_path / "tiny-clip"))
    assert load_teacher(str(tmp_path / "tiny-clip")).revision != first


def test_a_students_folder_is_loaded_as_a_student(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    asked: dict[str, object] = {}
    init = SentenceTransformer.__init__

    def spied(self: SentenceTransformer, *args: object, **kwargs: object) -> None:
        asked.update(kwargs)
        init(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "__init__", spied)
    assert load_teacher(str(model)).dim == 16
    assert asked["local_files_only"] is True
    assert "Loading weights" not in capfd.readouterr().err
    pickled = shutil.copytree(model, tmp_path / "pickled")
    for weights in pickled.rglob("model.safetensors"):
        torch.save({}, weights.with_name("pytorch_model.bin"))
        weights.unlink()
    with pytest.raises(DistilvlError, match="is not a student folder"):
        load_teacher(str(pickled))


def test_text_only_model_is_refused(text_tower: Path, tmp_path: Path):
    modules = [Transformer(str(text_tower)), Pooling(16)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "texts"))
    with pytest.raises(DistilvlError, match="it takes text, but no image"):
        load_teacher(str(tmp_path / "texts"))


def test_folder_of_something_else(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"is not a SentenceTransformer: it has neither .* Give a run") as caught:
        load_teacher(str(tmp_path))
    assert "\n" not in str(caught.value)
