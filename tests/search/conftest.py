"""A model that can be reasoned about, and folders of photographs for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

pytest.importorskip("lancedb")

from distilvl.models.encoder import Encoder
from distilvl.search import Index

NAMES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255), "black": (0, 0, 0)}


class Colours:
    """Mean colour of a picture or of the colours a text names, around grey; counts what it was shown."""

    name, revision, dim = "colours", "1", 8

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision
        self.shown = 0
        self.batches: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float64]:
        self.shown += len(images)
        self.batches.append(len(images))
        return np.stack([self._row(np.asarray(image, dtype=np.float64).mean(axis=(0, 1))) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        named = [[NAMES[word] for word in text.split() if word in NAMES] or [(128, 128, 128)] for text in texts]
        return np.stack([self._row(np.mean(colours, axis=0)) for colours in named])

    @staticmethod
    def _row(colour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # A constant keeps grey from being zero; all is three times as long as L2-normalised, as models may be.
        return 3 * np.concatenate([(colour - 127.5) / 127.5, [0.1], np.zeros(4)])


@pytest.fixture
def colours() -> Colours:
    return Colours()


@pytest.fixture
def encoder(colours: Colours) -> Encoder:
    return Encoder(colours)


@pytest.fixture
def paint() -> Callable[..., Path]:
    """`paint(path, seed)` writes a small photograph of a colour that the seed decides; another seed, other bytes."""

    def write(path: Path, seed: object, size: tuple[int, int] = (40, 30), **save: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(repr(seed).encode()).digest()
        colour = NAMES[seed] if isinstance(seed, str) and seed in NAMES else tuple(digest[:3])
        Image.new("RGB", size, colour).save(path, **save)
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """30 photographs, half of them in a folder with a difficult name, and a text file."""
    folder = tmp_path / "photos"
    for k in range(30):
        paint(folder / ('O\'Brien 100%_"x"' if k % 2 else "") / f"{k:02}.png", k)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def index(photos: Path, tmp_path: Path, encoder: Encoder) -> Index:
    """Of `photos`, up to date."""
    made = Index.create(tmp_path / "made.index", encoder)
    made.update(photos)
    return made
