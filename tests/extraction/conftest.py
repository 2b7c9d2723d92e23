"""A tiny picture folder and a teacher that counts what it encodes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.data.records import FileImage, PairDataset, Record


class CountingTeacher:
    """Rows depend on the item only: mean colours, or the caption's letters."""

    name, revision, dim = "counting", "1", 4

    def __init__(self) -> None:
        self.images: list[tuple[int, ...]] = []
        self.texts: list[str] = []

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        means = np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images])
        self.images += [tuple(row) for row in means.round().astype(int).tolist()]
        return np.concatenate([means, np.ones((len(images), 1))], axis=1)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        return np.array([[len(text), text.count("a"), sum(map(ord, text)) % 97, 1.0] for text in texts])


def png(color: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def teacher() -> CountingTeacher:
    return CountingTeacher()


@pytest.fixture
def pictures(tmp_path: Path) -> PairDataset:
    """Twelve images, the last with the bytes of the first; 24 captions, one of them on every image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    records = []
    for k in range(12):
        path = folder / f"{k:02d}.png"
        path.write_bytes(png((20 * (k % 11), 7, 3)))
        captions = (f"picture {k}", "a picture")
        records.append(Record(f"{k:02d}.png", FileImage(str(path)), captions, "train", (str(2 * k), str(2 * k + 1))))
    return PairDataset("pictures", tuple(records))


@pytest.fixture
def arrays(tmp_path: Path, pictures: PairDataset) -> Path:
    """Features of `pictures` as a folder of arrays, rows shuffled, with one image too many."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    random = np.random.default_rng(0)
    image_ids = [*random.permutation([record.image_id for record in pictures]).tolist(), "stranger.png"]
    text_ids = random.permutation(24).tolist()
    np.save(folder / "image_features.npy", random.normal(size=(13, 5)).astype(np.float32))
    np.save(folder / "text_features.npy", random.normal(size=(24, 5)).astype(np.float32))
    (folder / "ids.json").write_text(json.dumps({"image": image_ids, "text": text_ids}))
    return folder


def files_of(store: Path) -> dict[str, bytes]:
    """All files of a store: name -> bytes."""
    return {path.name: path.read_bytes() for path in store.iterdir()}
