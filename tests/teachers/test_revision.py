from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.teachers.base import folder_hash, hub_commit
from distilvl.teachers.torch_teacher import weights_hash


def test_folder_hash_follows_what_decides_the_output(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "model.safetensors").write_bytes(b"weights")
    first = folder_hash(tmp_path)
    (tmp_path / "README.md").write_text("words for people")
    assert folder_hash(tmp_path) == first
    (tmp_path / "part" / "model.safetensors").write_bytes(b"weightS")
    changed = folder_hash(tmp_path)
    (tmp_path / "part" / "model.safetensors").rename(tmp_path / "model.safetensors")
    assert len({first, changed, folder_hash(tmp_path)}) == 3


def test_weights_hash_follows_names_values_shapes_and_formats():
    weights = {"a": torch.arange(6.0), "b": torch.tensor(1.5)}
    first = weights_hash(weights)
    assert weights_hash(dict(reversed(weights.items()))) == first
    others = [
        {**weights, "a": torch.arange(6.0) + 1e-6},
        {**weights, "a": torch.arange(6.0).reshape(2, 3)},
        {**weights, "a": torch.arange(6.0).half()},
        {"a": weights["a"], "c": weights["b"]},
        {"a": weights["a"]},
    ]
    assert len({first, weights_hash(weights, b"more"), *map(weights_hash, others)}) == 7


def test_weights_hash_does_not_see_strides():
    weights = torch.arange(6.0).reshape(2, 3)
    assert weights_hash({"a": weights.T.contiguous().T}) == weights_hash({"a": weights})


def test_a_model_that_is_not_in_the_cache():
    with pytest.raises(DistilvlError, match="revision of nobody/nothing-at-all is unknown"):
        hub_commit("nobody/nothing-at-all")
