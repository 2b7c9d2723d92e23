from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distilvl.data.records import PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction import extract_features, importing
from distilvl.extraction.importing import is_array_folder, load_arrays
from distilvl.io.hashes import image_key, text_key


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_rows_are_matched_by_id(arrays: Path, pictures: PairDataset, tmp_path: Path):
    report = extract_features(arrays, pictures, tmp_path / "store")
    ids = json.loads((arrays / "ids.json").read_text())
    images, texts = np.load(arrays / "image_features.npy"), np.load(arrays / "text_features.npy")
    for record in pictures.records[:11]:
        row = images[ids["image"].index(record.image_id)].astype(float)
        stored = report.store.images([image_key(record.image.read())])[0]
        np.testing.assert_array_equal(stored, (row / np.linalg.norm(row)).astype(np.float16))
        row = texts[ids["text"].index(int(record.caption_ids[0]))].astype(float)
        stored = report.store.texts([text_key(record.captions[0])])[0]
        np.testing.assert_array_equal(stored, (row / np.linalg.norm(row)).astype(np.float16))
    assert report.store.counts == {"image": 11, "text": 13}
    assert (report.extracted_images, report.extracted_texts, report.skipped) == (0, 0, [])
    assert report.store.manifest.teacher == "arrays"


def test_importing_again_and_in_parts_gives_the_same_bytes(arrays, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "_SHARD_ROWS", 4)
    extract_features(arrays, pictures, tmp_path / "whole")
    before = files_of(tmp_path / "whole")
    extract_features(arrays, pictures, tmp_path / "whole")
    assert files_of(tmp_path / "whole") == before
    store = extract_features(arrays, pictures, tmp_path / "parts").store
    for path in [*store.path.glob("image-00002-*"), *store.path.glob("text-0000[123]-*")]:
        path.unlink()
    extract_features(arrays, pictures, tmp_path / "parts")
    assert files_of(tmp_path / "parts") == before


@pytest.mark.parametrize(
    ("kind", "lost", "words"),
    [("image", "07.png", r"image '07.png' \(1 of 12"), ("text", 5, r"caption '5' \(1 of 24")],
)
def test_missing_id(arrays: Path, pictures: PairDataset, tmp_path: Path, kind: str, lost: object, words: str):
    path = arrays / "ids.json"
    ids = json.loads(path.read_text())
    ids[kind][ids[kind].index(lost)] = "another"
    path.write_text(json.dumps(ids))
    with pytest.raises(DistilvlError, match=words):
        extract_features(arrays, pictures, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_row_that_is_not_finite_is_named(arrays: Path, pictures: PairDataset, tmp_path: Path):
    images = np.load(arrays / "image_features.npy")
    row = json.loads((arrays / "ids.json").read_text())["image"].index("04.png")
    images[row, 2] = np.nan
    np.save(arrays / "image_features.npy", images)
    with pytest.raises(DistilvlError, match=r"not finite for '04\.png'"):
        extract_features(arrays, pictures, tmp_path / "store")


def test_arrays_of_other_content_do_not_mix(arrays: Path, pictures: PairDataset, tmp_path: Path):
    extract_features(arrays, pictures, tmp_path / "store")
    np.save(arrays / "text_features.npy", np.load(arrays / "text_features.npy") + 1)
    with pytest.raises(DistilvlError, match="made by another teacher"):
        extract_features(arrays, pictures, tmp_path / "store")


def test_unreadable_image(arrays: Path, pictures: PairDataset, tmp_path: Path):
    Path(pictures[2].image.name).unlink()
    with pytest.raises(BadImageError, match=r"02\.png"):
        extract_features(arrays, pictures, tmp_path / "store")
    report = extract_features(arrays, pictures, tmp_path / "store", skip_bad=True)
    assert report.skipped == [pictures[2].image.name]


def test_features_known_by_caption(arrays: Path, pictures: PairDataset, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(1)
    captions = sorted(set(pictures.captions))
    images, texts = random.normal(size=(12, 5)), random.normal(size=(len(captions), 5))
    names = [record.image_id for record in pictures]
    pq.write_table(pa.table({"id": names, "image_embedding": images.tolist()}), tmp_path / "i.parquet")
    pq.write_table(pa.table({"caption": captions, "text_embedding": texts.tolist()}), tmp_path / "t.parquet")
    (tmp_path / "both").mkdir()
    for name in ("i", "t"):
        (tmp_path / f"{name}.parquet").rename(tmp_path / "both" / f"{name}.parquet")
    store = extract_features(f"parquet:{tmp_path / 'both'}", pictures, tmp_path / "store").store
    assert store.counts == {"image": 11, "text": 13}
    expected = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    np.testing.assert_allclose(store.texts([text_key(caption) for caption in captions]), expected, atol=1e-3)
    expected = images / np.linalg.norm(images, axis=1, keepdims=True)
    stored = store.images([image_key(record.image.read()) for record in pictures])
    np.testing.assert_allclose(stored[:11], expected[:11], atol=1e-3)
    more = PairDataset("more", (replace(pictures[0], captions=("never seen",), given_ids=("x",)),))
    with pytest.raises(DistilvlError, match=r"features in parquet:.*lack the caption 'never seen' \(1 of 1"):
        extract_features(f"parquet:{tmp_path / 'both'}", more, tmp_path / "store")


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
    assert (arrays.images.shape[1], arrays.name) == (4, "arrays")
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


def test_different_dimensions(folder: Path):
    np.save(folder / "text_features.npy", np.ones((3, 5)))
    with pytest.raises(DistilvlError, match=r"dimension 4, text_features\.npy has dimension 5"):
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
