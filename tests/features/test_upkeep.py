from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore, Manifest, merge_stores, store_info
from distilvl.features.upkeep import Pending
from distilvl.io.hashes import text_key

KEYS = [text_key(str(k)) for k in range(20)]
ROWS = np.random.default_rng(0).normal(size=(20, 3))


def make(path: Path, start: int, stop: int, step: int = 2, revision: str = "1", flip: bool = False) -> FeatureStore:
    store = FeatureStore.create(path, Manifest(teacher="t", revision=revision, dim=3))
    for at in range(start, stop, step):
        part = slice(at, min(at + step, stop))
        store.add("image", KEYS[part], -ROWS[part] if flip else ROWS[part])
    store.add("text", KEYS[start:stop], ROWS[start:stop])
    return store


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_every_item_once_and_bit_for_bit(tmp_path: Path):
    a, b = make(tmp_path / "a", 0, 12), make(tmp_path / "b", 9, 20, flip=True)
    merged = merge_stores([a.path, b.path], tmp_path / "out", shard_size=8)
    report = merged.verify()
    assert (report.images, report.texts, report.repeated, report.shards) == (20, 20, 0, 6)
    assert merged.images(KEYS[:12]).tobytes() == a.images(KEYS[:12]).tobytes()
    assert merged.images(KEYS[12:]).tobytes() == b.images(KEYS[12:]).tobytes()
    assert merged.texts(KEYS).tobytes() == np.concatenate([a.texts(KEYS[:12]), b.texts(KEYS[12:])]).tobytes()


def test_again_and_after_a_kill_it_ends_with_the_same_bytes(tmp_path: Path):
    sources = [make(tmp_path / "a", 0, 12).path, make(tmp_path / "b", 9, 20).path]
    merge_stores(sources, tmp_path / "out", shard_size=4)
    whole = files_of(tmp_path / "out")
    merge_stores(sources, tmp_path / "out", shard_size=4)
    assert files_of(tmp_path / "out") == whole
    for path in [*tmp_path.glob("out/image-0000[34]*"), *tmp_path.glob("out/text-*")]:
        path.unlink()
    merge_stores(sources, tmp_path / "out", shard_size=4)
    assert files_of(tmp_path / "out") == whole


def test_few_shards_out_of_many(tmp_path: Path):
    store = make(tmp_path / "many", 0, 20, step=1)
    merged = merge_stores([store.path], tmp_path / "few")
    assert (store.verify().shards, merged.verify().shards) == (21, 2)
    assert merged.images(KEYS).tobytes() == store.images(KEYS).tobytes()


def test_refusals(tmp_path: Path):
    a, other = make(tmp_path / "a", 0, 4), make(tmp_path / "other", 0, 4, revision="2")
    with pytest.raises(DistilvlError, match="another teacher"):
        merge_stores([a.path, other.path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DistilvlError, match="into itself"):
        merge_stores([a.path, other.path], tmp_path / "x" / ".." / "a")
    with pytest.raises(DistilvlError, match="one or more"):
        merge_stores([], tmp_path / "out")
    with pytest.raises(DistilvlError, match="one or more"):
        merge_stores([f"mean:{a.path},{a.path}"], tmp_path / "out")


def test_a_broken_shard_is_not_copied(tmp_path: Path):
    a = make(tmp_path / "a", 0, 4)
    path = sorted(a.path.glob("image-00001*"))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DistilvlError, match=r"image-00001.*checksum"):
        merge_stores([a.path], tmp_path / "out")


def make_small(path: Path) -> FeatureStore:
    store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=3))
    store.add("image", [text_key("a"), text_key("b")], np.eye(3)[:2])
    return store


def test_a_store(tmp_path: Path):
    store = make_small(tmp_path / "a")
    Pending(store, "text").keep([text_key("a")], np.ones((1, 3), np.float32))
    (store.path / ".claim-text-00000-x").write_text("someone")
    info = store_info(store.path)
    assert (info.images, info.texts, info.shards, info.claims, info.unsettled) == (2, 0, 1, 1, 1)
    assert info.bytes == sum(path.stat().st_size for path in store.path.iterdir())
    assert "teacher: t\n" in str(info)
    assert json.loads(json.dumps(info.as_dict()))["dim"] == 3


def test_an_ensemble(tmp_path: Path):
    paths = [make_small(tmp_path / name).path for name in ("a", "b")]
    info = store_info(f"concat:{paths[0]},{paths[1]}")
    assert (info.manifest.dim, info.images, info.shards) == (6, 2, 2)
