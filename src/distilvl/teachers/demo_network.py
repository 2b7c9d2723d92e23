"""The demo's teacher: a small dual encoder trained by this project on `scenes` (scripts/train_demo_teacher.py)."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from distilvl.pictures import upright_rgb
from distilvl.teachers.torch_teacher import Inputs, RunOptions, TorchTeacher

WEIGHTS = Path(__file__).with_name("demo_teacher.safetensors")
SIDE = 64  # pixels; images are resized to a square
MAX_WORDS = 64
_PAD, _UNKNOWN = 0, 1


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs))


class ImageNetwork(nn.Module):
    """(n, 3, 64, 64) pixels in [-1, 1] to a map (n, 256, 4, 4) and to (n, dim), not normalised."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 64, 4, stride=4), nn.BatchNorm2d(64), nn.ReLU(),
            _conv(64, 64), nn.ReLU(),
            _conv(64, 128, stride=2), nn.ReLU(), _Residual(128),
            _conv(128, 256, stride=2), nn.ReLU(), _Residual(256),
        )  # fmt: skip
        # No pooling: where things are is part of what the captions say.
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256 * 16, 256), nn.GELU(), nn.Linear(256, dim))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The map and the feature."""
        feature_map = self.body(pixels)
        return feature_map, self.head(feature_map)


class TextNetwork(nn.Module):
    """(n, L) word numbers, 0 for padding, to (n, dim), not normalised."""

    def __init__(self, vocabulary: int, dim: int, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=_PAD)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, dim))

    def forward(self, words: Tensor) -> Tensor:
        """Mean of the words' last states, then the head."""
        is_pad = words == _PAD
        states = self.body(self.words(words) + self.positions[: words.shape[1]], src_key_padding_mask=is_pad)
        weight = (~is_pad).unsqueeze(-1).to(states.dtype)
        return self.head((states * weight).sum(1) / weight.sum(1).clamp(min=1))  # type: ignore[no-any-return]


class DemoNetwork(nn.Module):
    """Both networks and the vocabulary: the known words; all others count as unknown."""

    def __init__(self, vocabulary: Sequence[str], dim: int = 128) -> None:
        super().__init__()
        self.vocabulary = list(vocabulary)
        self._number = {word: k + 2 for k, word in enumerate(self.vocabulary)}
        self.image, self.text = ImageNetwork(dim), TextNetwork(len(self.vocabulary) + 2, dim)

    def numbers(self, texts: Sequence[str]) -> Tensor:
        """(n, L) int64 word numbers, padded with 0."""
        # A text without words counts as one unknown word: a mean over nothing would be NaN.
        words = [split_words(text)[:MAX_WORDS] or [""] for text in texts]
        rows = [[self._number.get(word, _UNKNOWN) for word in row] for row in words]
        return pad_sequence([torch.tensor(row) for row in rows], True, _PAD)


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def pixels_of(images: Sequence[Image.Image]) -> Tensor:
    """(n, 3, 64, 64) float in [-1, 1]."""
    pictures = [upright_rgb(image, f"item {k}") for k, image in enumerate(images)]
    arrays = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


class DemoTeacher(TorchTeacher):
    """The trained network as a `Teacher`; its embeddings are L2-normalised."""

    preprocessing = "RGB, 64 x 64 bicubic, [-1, 1]; lower-case words"
    max_length = MAX_WORDS

    def __init__(self) -> None:
        with safe_open(WEIGHTS, framework="pt") as file:
            metadata = file.metadata()
        self._model = DemoNetwork(json.loads(metadata["vocabulary"]), int(metadata["dim"]))
        self._model.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
        revision = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:16]
        super().__init__(self._model, "demo-teacher", revision, RunOptions("cpu", batch_size=250))

    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        """Pixels in [-1, 1]."""
        return {"pixels": pixels_of(images)}

    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        """Word numbers."""
        return {"words": self._model.numbers(texts)}

    def image_features(self, inputs: Inputs) -> Tensor:
        """L2-normalised embeddings, shape (n, D)."""
        return F.normalize(self._model.image(inputs["pixels"])[1], dim=1)

    def text_features(self, inputs: Inputs) -> Tensor:
        """L2-normalised embeddings, shape (n, D)."""
        return F.normalize(self._model.text(inputs["words"]), dim=1)
