"""The index of a page: each picture once, with the files that hold it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.browser import write_indexed, write_pictures
from distilvl.errors import DistilvlError


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


def test_an_index_is_written_as_it_is(tmp_path: Path) -> None:
    """Nothing is encoded; copies are those of the index; nobody learns where the folders lie."""
    pytest.importorskip("lancedb")
    from distilvl.models.encoder import Encoder
    from distilvl.search import Index

    student: Any = _Student()
    student.manifest = SimpleNamespace(revision="1")
    random, index = np.random.default_rng(0), Index.create(tmp_path / "index", Encoder(student))
    for folder, names in (("one", "ab"), ("two", "c")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.fromarray(random.integers(0, 255, (9, 9, 3), np.uint8)).save(tmp_path / folder / f"{name}.png")
        (tmp_path / folder / "bad.jpg").write_bytes(b"no picture")
        if folder == "two":
            shutil.copy(tmp_path / "one" / "a.png", tmp_path / "two" / "copy.png")
            os.utime(tmp_path / "two" / "copy.png", (1e9, 1e9))  # the date is that of the first one
        index.update(tmp_path / folder)
        shown = tmp_path / f"site {folder}"
        shown.mkdir()
        student.encode_images = None
        pictures, left_out = write_indexed(index.path, student, shown)
        del student.encode_images
        written = json.loads((shown / "index.json").read_text(encoding="utf-8"))
        paths = [entry["paths"] for entry in written["pictures"]]
        if folder == "one":
            assert paths == [["a.png"], ["b.png"]]
    assert paths == [["one/a.png", "two/copy.png"], ["one/b.png"], ["two/c.png"]]
    assert (pictures, written["left_out"]) == (3, {"cannot be decoded": 2})
    assert left_out.counts == written["left_out"]
    rows = np.fromfile(shown / "vectors.bin", "<f2").reshape(3, 4).astype(np.float32)
    for row, entry in zip(rows, written["pictures"], strict=True):
        (hit,) = index.search(vector=row, top=1)
        assert (hit.id, hit.date.isoformat(), hit.width) == (entry["id"], entry["date"], entry["width"])
        assert hit.score == pytest.approx(1, abs=1e-3)
        assert (shown / "thumbnails" / f"{hit.id}.jpg").read_bytes() == index.thumbnail(hit.id)
    student.manifest.revision = "2"
    with pytest.raises(DistilvlError, match="was made with 'tiny', not with the exported student"):
        write_indexed(index.path, student, tmp_path)
