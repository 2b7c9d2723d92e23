from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distilvl.features import FeatureStore, Manifest
from distilvl.features.upkeep import Pending
from distilvl.io.hashes import text_key

KEYS = [text_key(str(k)) for k in range(5)]
ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store", Manifest(teacher="t", revision="r", dim=3))


def test_rows_come_back_bit_for_bit(store: FeatureStore):
    pending = Pending(store, "text")
    pending.keep(KEYS[:2], ROWS[:2])
    pending.keep(KEYS[2:4], ROWS[2:4])
    found = pending.load()
    assert set(found) == set(KEYS[:4])
    for key, row in zip(KEYS, ROWS, strict=False):
        if key in found:
            assert found[key].tobytes() == row.tobytes()
    assert Pending(store, "image").load() == {}


def test_only_what_is_in_shards_is_dropped(store: FeatureStore):
    pending = Pending(store, "text")
    pending.keep(KEYS[:2], ROWS[:2])
    pending.keep(KEYS[2:4], ROWS[2:4])
    store.add("text", KEYS[:3], ROWS[:3])
    pending.drop_stored()
    assert set(pending.load()) == set(KEYS[2:4])
    store.add("text", KEYS[3:], ROWS[3:])
    pending.drop_stored()
    assert not list(store.path.glob(".*"))


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file_counts_as_not_there(store: FeatureStore, damage: str):
    pending = Pending(store, "text")
    pending.keep(KEYS[:2], ROWS[:2])
    pending.keep(KEYS[2:3], ROWS[2:3])
    path = sorted(store.path.glob(".answer-*"))[0]
    lost = {key for key, _ in pending._table(path)}
    path.write_bytes({"cut": path.read_bytes()[:-1], "other": b"hello", "empty": b""}[damage])
    assert len(pending.load()) == 3 - len(lost)
    pending.drop_stored()
    assert not path.exists()


def test_stores_with_answers_open_as_before(store: FeatureStore):
    Pending(store, "text").keep(KEYS, ROWS)
    assert FeatureStore.open(store.path).counts == {"image": 0, "text": 0}
    assert FeatureStore.create(store.path, store.manifest).verify().shards == 0
