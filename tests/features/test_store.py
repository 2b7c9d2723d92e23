from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore, Manifest
from distilvl.features import store as store_module
from distilvl.io.hashes import text_key

MANIFEST = Manifest(teacher="t", revision="r", dim=3)
KEYS = [text_key(str(k)) for k in range(6)]
ROWS = np.random.default_rng(0).normal(size=(6, 3))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore.create(tmp_path / "store", MANIFEST)
    store.add("image", KEYS[:4], ROWS[:4])
    store.add("image", KEYS[4:], ROWS[4:])
    store.add("text", KEYS[:2], -ROWS[:2])
    return store


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


floats = st.floats(-100, 100, width=32).filter(lambda value: abs(value) > 0.01)


@given(
    rows=hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=floats),
    cut=st.integers(0, 12),
    data=st.data(),
)
def test_round_trip(rows: np.ndarray, cut: int, data: st.DataObject):
    keys = [text_key(str(k)) for k in range(len(rows))]
    asked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        writing = FeatureStore.create(folder, MANIFEST)
        writing.add("image", keys[:cut], rows[:cut])
        writing.add("image", keys[cut:], rows[cut:])
        for store in (writing, FeatureStore.open(folder)):
            got = store.images([keys[i] for i in asked])
            np.testing.assert_array_equal(got, unit(rows.astype(np.float64))[asked])
            assert got.dtype == np.float16
            assert store.verify().images == len(rows)


def test_modalities_are_apart(store: FeatureStore):
    assert store.counts == {"image": 6, "text": 2}
    np.testing.assert_array_equal(store.texts(KEYS[:2]), unit(-ROWS[:2]))
    assert store.missing("text", KEYS) == [2, 3, 4, 5]
    assert store.missing("image", KEYS) == []


def test_names_of_the_files_are_their_checksums(store: FeatureStore):
    names = sorted(path.name for path in store.path.iterdir())
    assert [name[:12] for name in names[:2]] == ["image-00000-", "image-00001-"]
    assert names[2] == "manifest.json"


def test_missing_key_names_the_item_and_the_remedy(store: FeatureStore):
    with pytest.raises(DistilvlError, match=r"text 'third' \(2 of 4 missing\).*distilvl features.*--out") as caught:
        store.texts([*KEYS[:2], KEYS[3], KEYS[4]], ["first", "second", "third", "fourth"])
    assert str(store.path) in str(caught.value)
    with pytest.raises(DistilvlError, match=KEYS[5].hex()):
        store.texts([KEYS[5]])


def test_empty_store(tmp_path: Path):
    store = FeatureStore.create(tmp_path, MANIFEST)
    assert store.images([]).shape == (0, 3)
    assert store.missing("image", KEYS) == list(range(6))
    with pytest.raises(DistilvlError, match="1 of 1 missing"):
        store.images(KEYS[:1])


def test_known_and_repeated_keys_are_written_once(store: FeatureStore):
    fresh = text_key("fresh")
    store.add("image", [KEYS[0], fresh, fresh], np.array([[9.0, 9, 9], [1, 0, 0], [0, 1, 0]]))
    np.testing.assert_array_equal(store.images([KEYS[0], fresh]), np.stack([unit(ROWS[:1])[0], [1, 0, 0]]))
    before = sorted(store.path.iterdir())
    store.add("image", KEYS, ROWS)
    assert sorted(store.path.iterdir()) == before


def test_more_shards_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_module, "_MAPPED_SHARDS", 2)
    store = FeatureStore.create(tmp_path, MANIFEST)
    for key, row in zip(KEYS, ROWS, strict=True):
        store.add("image", [key], row[None])
    for _ in range(2):
        np.testing.assert_array_equal(store.images(KEYS[::-1]), unit(ROWS)[::-1])
    assert len(store._mapped) <= 2


def test_a_process_that_may_open_few_files_reads_many_shards(tmp_path: Path):
    """And a shard that it may not open for lack of them is not called broken."""
    store = FeatureStore.create(tmp_path, MANIFEST)
    for number in range(30):
        store.add("image", [text_key(str(number))], ROWS[:1])
    script = f"""
import resource, sys
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.io.hashes import text_key
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
keys = [text_key(str(number)) for number in range(30)]
store = FeatureStore.open({str(tmp_path)!r})
print(len(store.images(keys)), len(store._mapped))
held = []
try:
    while True:
        held.append(open(sys.executable))
except OSError:
    pass
try:
    store.images(keys)
except DistilvlError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("30 5\n"), done.stderr[-2000:]
    assert "cannot be read: Too many open files" in done.stdout
    assert "broken" not in done.stdout


def test_create_opens_a_store_of_the_same_teacher(store: FeatureStore):
    again = FeatureStore.create(store.path, replace(MANIFEST, num_parameters=7))
    assert again.counts == store.counts


@pytest.mark.parametrize(
    ("change", "word"), [({"teacher": "u"}, "another teacher"), ({"dim": 4}, "dimension 3, .* has 4")]
)
def test_create_refuses_another_teacher(store: FeatureStore, change: dict[str, object], word: str):
    with pytest.raises(DistilvlError, match=word):
        FeatureStore.create(store.path, replace(MANIFEST, **change))


def test_create_refuses_a_folder_of_other_things(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DistilvlError, match=r"holds 'thesis.tex'"):
        FeatureStore.create(tmp_path, MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_create_removes_what_a_killed_run_left(store: FeatureStore):
    leftover = store.path / ".partial-image-00002-0123456789abcdef.npy"
    leftover.write_bytes(b"half a shard")
    FeatureStore.open(store.path)
    assert leftover.exists()
    FeatureStore.create(store.path, MANIFEST)
    assert not leftover.exists()


def test_another_dimension_is_refused(store: FeatureStore):
    with pytest.raises(DistilvlError, match="dimension 3, but the features have dimension 5"):
        store.add("image", [text_key("new")], np.ones((1, 5)))


def test_full_disk_keeps_finished_shards(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.read_bytes() for path in store.path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DistilvlError, match="No space left on device") as caught:
            store.add("text", KEYS[2:], ROWS[2:])
    assert str(store.path) in str(caught.value)
    assert {path: path.read_bytes() for path in store.path.iterdir()} == before
    store.add("text", KEYS[2:], ROWS[2:])
    assert FeatureStore.open(store.path).verify().texts == 6


def _shard(store: FeatureStore, start: str) -> Path:
    return next(path for path in store.path.iterdir() if path.name.startswith(start))


def test_verify_finds_one_changed_byte(store: FeatureStore):
    assert (store.verify().shards, store.verify().images, store.verify().texts) == (3, 6, 2)
    path = _shard(store, "image-00001")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DistilvlError, match=r"checksum.*Delete that file and run") as caught:
        FeatureStore.open(store.path).verify()
    assert path.name in str(caught.value)


def test_deleting_a_broken_shard_and_running_again_restores_the_same_file(store: FeatureStore):
    path = _shard(store, "image-00000")
    data = path.read_bytes()
    path.unlink()
    store = FeatureStore.create(store.path, MANIFEST)
    missing = store.missing("image", KEYS)
    assert missing == [0, 1, 2, 3]
    store.add("image", [KEYS[i] for i in missing], ROWS[missing])
    assert path.read_bytes() == data


def test_verify_counts_repeated_items(store: FeatureStore, tmp_path: Path):
    other = FeatureStore.create(tmp_path / "other", MANIFEST)
    other.add("image", KEYS[:2], ROWS[:2])
    source = _shard(other, "image-00000")
    (store.path / source.name.replace("00000", "00007")).write_bytes(source.read_bytes())
    report = FeatureStore.open(store.path).verify()
    assert (report.images, report.repeated, report.shards) == (6, 2, 4)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle", "other"])
def test_open_names_a_shard_it_cannot_read(store: FeatureStore, damage: str):
    path = _shard(store, "text-00000")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"hello, this is no array at all")
    elif damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object))
    else:
        np.save(path, np.ones(4))
    with pytest.raises(DistilvlError, match=r"text-00000-.* is broken: .*Delete that file"):
        FeatureStore.open(store.path)


def test_open_of_a_folder_that_is_none(tmp_path: Path):
    with pytest.raises(DistilvlError, match="is not a feature store"):
        FeatureStore.open(tmp_path)
