from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.extraction.arrays import is_array_folder, load_arrays


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "image_features.npy", np.ones((2, 4), dtype=np.float16))
    np.save(tmp_path / "text_features.npy", np.ones((3, 4), dtype=np.float32))
    (tmp_path / "ids.json").write_text(json.dumps({"image": ["a", "b"], "text": [0, 1, "x"], "text_image": []}))
    return tmp_path


def test_rows_by_id(folder: Path):
    arrays = load_arrays(folder)
    assert arrays.image_rows == {"a": 0, "b": 1}
    assert arrays.text_rows == {"0": 0, "1": 1, "x": 2}
    assert (arrays.dim, arrays.name) == (4, "arrays")
    assert is_array_folder(folder)
    assert not is_array_folder(folder / "ids.json")


def test_revision_follows_the_content(folder: Path):
    first = load_arrays(folder).revision
    assert load_arrays(folder).revision == first
    np.save(folder / "image_features.npy", np.zeros((2, 4), dtype=np.float16))
    assert load_arrays(folder).revision != first


def test_teacher_file(folder: Path):
    (folder / "teacher.json").write_text('{"name": "big", "revision": "7"}')
    assert (load_arrays(folder).name, load_arrays(folder).revision) == ("big", "7")
    (folder / "teacher.json").write_text('{"name": "big"}')
    with pytest.raises(DistilvlError, match=r"teacher\.json lacks 'name' or 'revision'"):
        load_arrays(folder)


@pytest.mark.parametrize("name", ["image_features.npy", "text_features.npy", "ids.json"])
def test_missing_file(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(DistilvlError, match=rf"cannot read .*{name}"):
        load_arrays(folder)


@pytest.mark.parametrize(
    "array", [np.ones(4), np.ones((2, 4), dtype=int), np.array([[{}]], dtype=object), np.ones((2, 2, 2))]
)
def test_arrays_of_another_kind(folder: Path, array: np.ndarray):
    np.save(folder / "image_features.npy", array)
    with pytest.raises(DistilvlError, match=r"image_features\.npy is not a"):
        load_arrays(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk"])
def test_files_that_are_no_arrays(folder: Path, content: bytes):
    (folder / "text_features.npy").write_bytes(content)
    with pytest.raises(DistilvlError, match=r"text_features\.npy is not a plain NumPy array"):
        load_arrays(folder)


def test_different_widths(folder: Path):
    np.save(folder / "text_features.npy", np.ones((3, 5)))
    with pytest.raises(DistilvlError, match=r"width 4, text_features\.npy has width 5"):
        load_arrays(folder)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ({"image": ["a"], "text": [0, 1, 2]}, "has 1 image ids for 2 rows"),
        ({"image": ["a", "b"]}, "has no text ids for 3 rows"),
        ({"image": ["a", "a"], "text": [0, 1, 2]}, "lists the image id 'a' twice"),
        ({"image": ["a", "b"], "text": [0, 1, "1"]}, "lists the text id '1' twice"),
        ([], "is not a JSON object"),
    ],
)
def test_bad_ids(folder: Path, ids: object, words: str):
    (folder / "ids.json").write_text(json.dumps(ids))
    with pytest.raises(DistilvlError, match=words):
        load_arrays(folder)
