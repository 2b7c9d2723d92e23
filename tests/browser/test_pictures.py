"""The index of a page: each picture once, with the files that hold it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distilvl.browser import write_pictures


class _Student:
    name, revision, dim = "tiny", "1", 4

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(image.resize((2, 2)).convert("L"), np.float64).ravel() + 1 for image in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 4))


def test_copies_are_one_picture_and_every_bad_file_counts(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "deep").mkdir(parents=True)
    out.mkdir()
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(random.integers(0, 255, (9, 9, 3), np.uint8)).save(photos / name)
    shutil.copy(photos / "a.png", photos / "deep" / "copy.png")
    Image.open(photos / "a.png").save(photos / "packed.bmp")
    for name in ("bad.jpg", "worse.jpg"):
        (photos / name).write_bytes(b"no picture")
    student: Any = _Student()
    pictures, left_out = write_pictures(photos, student, out)
    assert (pictures, left_out.counts) == (2, {"cannot be decoded": 2})
    entries = json.loads((out / "index.json").read_text(encoding="utf-8"))["pictures"]
    assert [(entry["path"], entry["paths"]) for entry in entries] == [
        ("a.png", ["a.png", "deep/copy.png", "packed.bmp"]),
        ("b.png", ["b.png"]),
    ]
    assert (out / "vectors.bin").stat().st_size == 2 * 4 * 2
    assert len(list((out / "thumbnails").iterdir())) == 2


def test_pictures_that_differ_in_a_spot_are_two(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    out.mkdir()
    image = Image.new("RGB", (3000, 3000), "white")
    image.save(photos / "a.png")
    image.save(photos / "packed.bmp")
    image.putpixel((1500, 1500), (255, 255, 254))
    image.save(photos / "b.png")
    student: Any = _Student()
    assert write_pictures(photos, student, out)[0] == 2
    entries = json.loads((out / "index.json").read_text(encoding="utf-8"))["pictures"]
    assert [entry["paths"] for entry in entries] == [["a.png", "packed.bmp"], ["b.png"]]
