from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distilvl.data.left_out import MISSING, NOT_DECODED
from distilvl.data.pixels import decode_pixels
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key


def resize(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(image.resize((8, 8))).transpose(2, 0, 1) for image in images])


def _dataset(folder: Path, count: int) -> PairDataset:
    records = []
    for k in range(count):
        path = folder / f"{k}.png"
        Image.new("RGB", (8, 8), (k, 0, 0)).save(path)
        records.append(Record(str(k), FileImage(str(path)), (f"caption {k}",), "train"))
    return PairDataset("folder", tuple(records))


def test_pixels_and_keys_stand_in_the_datasets_order(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 70)
    cache = decode_pixels(dataset, resize)
    assert cache.pixels.shape == (70, 3, 8, 8)
    assert cache.pixels[:, 0, 0, 0].tolist() == list(range(70))
    assert cache.keys == [image_key(record.image.read()) for record in dataset]


def test_bad_images_stop_or_are_skipped_and_named(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 5)
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "JPEG")
    (tmp_path / "1.png").write_bytes(buffer.getvalue()[:400])
    (tmp_path / "3.png").unlink()
    with pytest.raises(BadImageError, match=r"1\.png"):
        decode_pixels(dataset, resize)
    cache = decode_pixels(dataset, resize, skip_bad=True)
    assert [record.image_id for record in cache.dataset] == ["0", "2", "4"]
    assert [(Path(name).name, reason) for name, reason in cache.left_out.items()] == [
        ("1.png", NOT_DECODED), ("3.png", MISSING),
    ]  # fmt: skip
    assert cache.pixels[:, 0, 0, 0].tolist() == [0, 2, 4]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 2)
    for record in dataset:
        Path(record.image.name).write_bytes(b"no image")
    with pytest.raises(BadImageError, match="no image of folder"):
        decode_pixels(dataset, resize, skip_bad=True)
