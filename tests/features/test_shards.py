from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import numpy as np

from distilvl.features.shards import Shard
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
