from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from distilvl.features import FeatureStore, Manifest, store_info
from distilvl.features.pending import Answers
from distilvl.io.hashes import text_key


def make(path: Path) -> FeatureStore:
    store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=3))
    store.add("image", [text_key("a"), text_key("b")], np.eye(3)[:2])
    return store


def test_a_store(tmp_path: Path):
    store = make(tmp_path / "a")
    Answers(store, "text").keep([text_key("a")], np.ones((1, 3), np.float32))
    (store.path / ".claim-text-00000-x").write_text("someone")
    info = store_info(store.path)
    assert (info.images, info.texts, info.shards, info.claims, info.unsettled) == (2, 0, 1, 1, 1)
    assert info.bytes == sum(path.stat().st_size for path in store.path.iterdir())
    assert "teacher: t\n" in str(info)
    assert json.loads(json.dumps(info.as_dict()))["dim"] == 3


def test_an_ensemble(tmp_path: Path):
    paths = [make(tmp_path / name).path for name in ("a", "b")]
    info = store_info(f"concat:{paths[0]},{paths[1]}")
    assert (info.manifest.dim, info.images, info.shards) == (6, 2, 2)
