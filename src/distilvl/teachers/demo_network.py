"""The demo's teacher: a small dual encoder trained by this project on `scenes` (scripts/train_demo_teacher.py).

Weights and vocabulary are one safetensors file in this folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.pictures import upright_rgb

WEIGHTS = Path(__file__).with_name("demo_teacher.safetensors")

SIDE = 64
"""Images are resized to this many pixels a side."""

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
            nn.Conv2d(3, 64, 4, stride=4),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            _conv(64, 64),
            nn.ReLU(),
            _conv(64, 128, stride=2),
            nn.ReLU(),
            _Residual(128),
            _conv(128, 256, stride=2),
            nn.ReLU(),
            _Residual(256),
        )
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
    """Both networks and the vocabulary.

    Args:
        vocabulary: known words; all others count as unknown.
        dim: D, the embedding dimension.
    """

    def __init__(self, vocabulary: Sequence[str], dim: int = 128) -> None:
        super().__init__()
        self.vocabulary = list(vocabulary)
        self._number = {word: k + 2 for k, word in enumerate(self.vocabulary)}
        self.image, self.text = ImageNetwork(dim), TextNetwork(len(self.vocabulary) + 2, dim)

    def numbers(self, texts: Sequence[str]) -> Tensor:
        """(n, L) int64 word numbers, padded with 0."""
        # A text without words counts as one unknown word: a mean over nothing would be NaN.
        rows = [
            [self._number.get(word, _UNKNOWN) for word in split_words(text)][:MAX_WORDS] or [_UNKNOWN] for text in texts
        ]
        padded = torch.full((len(rows), max(map(len, rows))), _PAD)
        for k, row in enumerate(rows):
            padded[k, : len(row)] = torch.tensor(row)
        return padded


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def pixels_of(images: Sequence[Image.Image]) -> Tensor:
    """(n, 3, 64, 64) float in [-1, 1]."""
    pictures = [upright_rgb(image, f"item {k}") for k, image in enumerate(images)]
    arrays = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


class DemoTeacher:
    """The trained network as a `Teacher`; its embeddings are L2-normalised.

    Args:
        device: where it runs.
        batch_size: items a forward pass.
        weights: another file that the training script wrote.
    """

    name = "demo-teacher"
    preprocessing = "RGB, 64 x 64 bicubic, [-1, 1]; lower-case words"

    def __init__(self, device: str = "cpu", batch_size: int = 250, weights: Path = WEIGHTS) -> None:
        with safe_open(weights, framework="pt") as file:
            metadata = file.metadata()
        self.dim = int(metadata["dim"])
        self.revision = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        self.device, self.batch_size = torch.device(device), batch_size
        self._network = DemoNetwork(json.loads(metadata["vocabulary"]), self.dim)
        self._network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        self._network.eval().to(self.device)

    def __repr__(self) -> str:
        return f"DemoTeacher(dim={self.dim}, device={str(self.device)!r})"

    @property
    def num_parameters(self) -> int:
        """Weights of both networks."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """L2-normalised embeddings, shape (n, dim)."""
        images = list_of_images(images)
        blocks = [
            self._network.image(pixels_of(images[start : start + self.batch_size]).to(self.device))[1]
            for start in range(0, len(images), self.batch_size)
        ]
        return self._normalised(blocks)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """L2-normalised embeddings, shape (n, dim)."""
        texts = list_of_texts(texts)
        blocks = [
            self._network.text(self._network.numbers(texts[start : start + self.batch_size]).to(self.device))
            for start in range(0, len(texts), self.batch_size)
        ]
        return self._normalised(blocks)

    def _normalised(self, blocks: list[Tensor]) -> npt.NDArray[np.float32]:
        found = torch.cat(blocks) if blocks else torch.zeros(0, self.dim)
        normalised: npt.NDArray[np.float32] = F.normalize(found, dim=1).cpu().numpy()
        return normalised
