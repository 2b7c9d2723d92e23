from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.features.manifest import Manifest
from distilvl.features.shards import KeyIndex, Shard, storable_embeddings
from distilvl.io.hashes import pack_keys, text_key

KEYS = pack_keys([text_key(str(k)) for k in range(3)])
ROWS = np.arange(6, dtype=np.float16).reshape(3, 2)


def test_name_and_content(tmp_path: Path):
    shard = Shard.write(tmp_path, "text", 12, KEYS, ROWS)
    digest = hashlib.sha256(shard.path.read_bytes()).hexdigest()
    assert shard.path.name == f"text-00012-{digest[:16]}.npy"
    table = np.load(shard.path, allow_pickle=False)
    np.testing.assert_array_equal(table["feature"], ROWS)
    assert [bytes(key) for key in table["key"].tolist()] == [text_key(str(k)) for k in range(3)]
    np.testing.assert_array_equal(shard.keys(2), KEYS)


def test_same_rows_same_bytes(tmp_path: Path):
    first = Shard.write(tmp_path, "image", 0, KEYS, ROWS)
    second = Shard.write(tmp_path, "image", 1, KEYS, ROWS)
    assert first.path.read_bytes() == second.path.read_bytes()


def test_list_ignores_other_files_and_sorts(tmp_path: Path):
    for modality, index in (("text", 0), ("image", 1), ("image", 0)):
        Shard.write(tmp_path, modality, index, KEYS, ROWS)
    for name in ("manifest.json", ".partial-image-00000-00.npy", "image-1-ab.npy", "notes.npy"):
        (tmp_path / name).write_bytes(b"")
    assert [(s.modality, s.index) for s in Shard.list(tmp_path)] == [("image", 0), ("image", 1), ("text", 0)]


def test_rows_are_memory_mapped(tmp_path: Path):
    table = Shard.write(tmp_path, "image", 0, KEYS, ROWS).open(2)
    assert isinstance(table.base.obj, mmap.mmap)
    assert not table.flags.writeable


keys16 = st.binary(min_size=16, max_size=16)


@given(st.lists(st.lists(keys16, max_size=8, unique=True), max_size=4), st.lists(keys16, max_size=5))
def test_find_agrees_with_a_dictionary(shards, strangers):
    expected: dict[bytes, tuple[int, int]] = {}
    for shard, keys in enumerate(shards):
        for row, key in enumerate(keys):
            expected.setdefault(key, (shard, row))
    index = KeyIndex.of_shards([pack_keys(keys) for keys in shards])
    asked = [*expected, *strangers]
    known, places = index.find(pack_keys(asked))
    assert len(index) == len(expected)
    assert known.tolist() == [key in expected for key in asked]
    assert [tuple(place) for place in places.tolist()] == [expected.get(key, (-1, -1)) for key in asked]


@given(st.lists(keys16, min_size=1, max_size=20, unique=True), st.integers(0, 20))
def test_adding_is_the_same_as_opening(keys, cut):
    parts = [pack_keys(keys[:cut]), pack_keys(keys[cut:])]
    grown = KeyIndex()
    for shard, part in enumerate(parts):
        grown.add(part, shard)
    for ours, theirs in zip(grown.find(pack_keys(keys)), KeyIndex.of_shards(parts).find(pack_keys(keys)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(st.lists(st.lists(st.sampled_from([bytes([k]) * 16 for k in range(60)]), max_size=9), max_size=25))
def test_adding_many_shards_that_overlap_is_the_same_as_opening(shards):
    packed = [pack_keys(keys) for keys in shards]
    grown, opened = KeyIndex(), KeyIndex.of_shards(packed)
    for shard, keys in enumerate(packed):
        grown.add(keys, shard)
    asked = pack_keys([bytes([k]) * 16 for k in range(60)])
    assert len(grown) == len(opened) == len({key for keys in shards for key in keys})
    for ours, theirs in zip(grown.find(asked), opened.find(asked), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_runs_stay_few():
    index = KeyIndex()
    for shard in range(300):
        index.add(pack_keys([shard.to_bytes(16, "big")]), shard)
    assert len(index) == 300
    assert len(index._runs) <= 9


def test_keys_that_end_in_zero_bytes_stay_apart():
    keys = [b"a" + bytes(15), b"a" + bytes(14) + b"\1", bytes(16)]
    _, places = KeyIndex.of_shards([pack_keys(keys)]).find(pack_keys(keys))
    assert places.tolist() == [[0, 0], [0, 1], [0, 2]]


UNIT = Manifest(teacher="t", revision="r", dim=3)
RAW = Manifest(teacher="t", revision="r", dim=3, normalized=False)


def test_embeddings_are_normalised():
    rows = storable_embeddings(np.array([[3.0, 0, 4], [0, 1e-8, 0]]), 2, UNIT, "t")
    np.testing.assert_array_equal(rows, np.array([[0.6, 0, 0.8], [0, 1, 0]], dtype=np.float16))


def test_rows_stay_as_they_are_when_not_normalized():
    np.testing.assert_array_equal(storable_embeddings(np.array([[3.0, 0, 4]]), 1, RAW, "t"), [[3, 0, 4]])


@pytest.mark.parametrize(
    ("features", "manifest", "words"),
    [
        (np.ones((2, 4)), UNIT, "dimension 3, but the features have dimension 4"),
        (np.ones((1, 3)), UNIT, r"shape \(1, 3\), not \(2, 3\)"),
        (np.ones(6), UNIT, r"shape \(6,\)"),
        (np.ones((2, 3), dtype=int), UNIT, "type int64"),
        (np.array([[1.0, 1, 1], [1, np.nan, 1]]), UNIT, "not finite for 'second' .1 of 2"),
        (np.array([[1.0, 1, 1], [1, np.inf, 1]]), UNIT, "not finite for 'second'"),
        (np.array([[1.0, 1, 1], [0, 0, 0]]), UNIT, "all zero for 'second'"),
        (np.array([[1.0, 1, 1], [1e6, 0, 0]]), RAW, "not finite for 'second'"),
    ],
)
def test_unfit_rows(features: np.ndarray, manifest: Manifest, words: str):
    with pytest.raises(DistilvlError, match=words):
        storable_embeddings(features, 2, manifest, "the teacher", ["first", "second"])
