"""The adapter over an object with open_clip's interface: open_clip needs a torchvision, which the tests do without."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers import Teacher
from distilvl.teachers.open_clip import OpenClipTeacher


class Model(nn.Module):
    """Mean colour and letter counts, each through a linear map."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image, self.text = nn.Linear(3, 5), nn.Linear(26, 5)

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        rows = self.image(pixels.mean((2, 3)))
        return F.normalize(rows, dim=-1) if normalize else rows

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        counts = F.one_hot(tokens, 27)[..., 1:].sum(1)
        rows = self.text(counts.to(self.text.weight.dtype))
        return F.normalize(rows, dim=-1) if normalize else rows


class Transform:
    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = np.asarray(image.resize((self.side, self.side)), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255

    def __repr__(self) -> str:
        return f"Resize({self.side})"


def tokenize(texts: list[str]) -> Tensor:
    rows = [[ord(letter) - 96 for letter in text if "a" <= letter <= "z"][:12] for text in texts]
    return torch.tensor([row + [0] * (12 - len(row)) for row in rows])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """open_clip, replaced; what was asked of it."""
    asked: list[tuple[Any, ...]] = []
    module = ModuleType("open_clip")

    def create_model_from_pretrained(model: str, pretrained: str | None, device: str) -> tuple[nn.Module, Transform]:
        if model == "No-Such":
            raise RuntimeError("Model config for\nNo-Such not found.")
        asked.append((model, pretrained, device))
        return Model(seed=len(pretrained or "")), Transform(8)

    def get_tokenizer(model: str) -> Any:
        asked.append((model,))
        return tokenize

    module.create_model_from_pretrained = create_model_from_pretrained  # type: ignore[attr-defined]
    module.get_tokenizer = get_tokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "open_clip", module)
    return asked


@torch.inference_mode()
def test_rows_are_the_models_own(calls: list[tuple[Any, ...]]):
    teacher = load_teacher("open_clip:ViT-B-32/laion2b_s34b_b79k?batch_size=2&device=cpu")
    assert isinstance(teacher, OpenClipTeacher)
    assert isinstance(teacher, Teacher)
    assert calls == [("ViT-B-32", "laion2b_s34b_b79k", "cpu"), ("ViT-B-32",)]
    model, transform = Model(seed=len("laion2b_s34b_b79k")), Transform(8)
    images = [Image.new("RGB", (9, 5), color) for color in ("red", "blue", "#102030")]
    texts = ["a red square", "", "two dogs on the beach"]
    expected = [model.encode_image(transform(image)[None])[0].numpy() for image in images]
    np.testing.assert_allclose(teacher.encode_images(images), expected, atol=1e-6)
    expected = [model.encode_text(tokenize([text]))[0].numpy() for text in texts]
    np.testing.assert_allclose(teacher.encode_texts(texts), expected, atol=1e-6)
    assert (teacher.name, teacher.dim) == ("ViT-B-32/laion2b_s34b_b79k", 5)


@pytest.mark.parametrize(
    ("spec", "asked", "name"),
    [
        ("ViT-B-32/openai", ("ViT-B-32", "openai"), "ViT-B-32/openai"),
        ("ViT-B-32//data/w.safetensors", ("ViT-B-32", "/data/w.safetensors"), "ViT-B-32/w.safetensors"),
        ("ViT-B-32/runs/w.pt", ("ViT-B-32", "runs/w.pt"), "ViT-B-32/w.pt"),
        ("hf-hub:laion/CLIP-x", ("hf-hub:laion/CLIP-x", None), "laion/CLIP-x"),
    ],
)
def test_forms(spec: str, asked: tuple[str, str | None], name: str, calls: list[tuple[Any, ...]]):
    assert load_teacher(f"open_clip:{spec}").name == name
    assert calls[0] == (*asked, "cpu")


def test_revision_follows_weights_and_transform(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch):
    first = load_teacher("open_clip:A/one").revision
    assert load_teacher("open_clip:A/two").revision == first
    assert load_teacher("open_clip:A/three").revision != first
    monkeypatch.setattr(Transform, "__repr__", lambda self: "Resize(9)")
    assert load_teacher("open_clip:A/one").revision != first


@pytest.mark.parametrize("rest", ["", "ViT-B-32", "ViT-B-32/", "/openai"])
def test_bad_spec(rest: str, calls: list[tuple[Any, ...]]):
    with pytest.raises(DistilvlError, match=r"names no model and weights\. Write open_clip:ViT-B-32/laion2b"):
        load_teacher(f"open_clip:{rest}")


def test_what_open_clip_cannot_load_is_one_line(calls: list[tuple[Any, ...]]):
    with pytest.raises(
        DistilvlError, match="cannot load 'No-Such' with weights 'x': RuntimeError: Model config for No"
    ):
        load_teacher("open_clip:No-Such/x")


def test_without_open_clip(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(DistilvlError, match=r"open_clip cannot be imported.*distilvl\[open-clip\]"):
        load_teacher("open_clip:ViT-B-32/openai")


def test_a_torchvision_that_does_not_fit(monkeypatch: pytest.MonkeyPatch):
    def fail(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("distilvl.teachers.open_clip.import_module", fail)
    with pytest.raises(DistilvlError, match=r"torchvision::nms does not exist.* that fits your PyTorch"):
        load_teacher("open_clip:ViT-B-32/openai")
