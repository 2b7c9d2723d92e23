from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from distilvl.errors import DistilvlError
from distilvl.training.run_folder import load_tensors, pack_state, save_tensors, unpack_state


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loss = model(torch.randn(4, 3)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _fresh() -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 2))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def test_continuing_from_a_file_is_bit_for_bit_the_undisturbed_run(tmp_path: Path) -> None:
    model, optimizer = _fresh()
    _train(model, optimizer, 10)
    expected = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    model, optimizer = _fresh()
    _train(model, optimizer, 4)
    save_tensors(pack_state({"model": model}, optimizer), {"step": 4}, tmp_path / "last.safetensors")

    model, optimizer = _fresh()
    torch.manual_seed(99)
    tensors, metadata = load_tensors(tmp_path / "last.safetensors")
    unpack_state(tensors, {"model": model}, optimizer)
    assert metadata == {"step": 4}
    _train(model, optimizer, 6)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key])


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_tensors({"x": torch.ones(3)}, {"step": 1}, path)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DistilvlError, match=r"No space left on device.*same command again"):
        save_tensors({"x": torch.zeros(3)}, {"step": 2}, path)
    tensors, metadata = load_tensors(path)
    assert metadata == {"step": 1}
    assert tensors["x"].sum() == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"garbage")
    with pytest.raises(DistilvlError, match=r"last\.safetensors is not a checkpoint"):
        load_tensors(path)


def test_tied_weights_are_written_once_and_come_back_under_both_names(tmp_path: Path) -> None:
    shared = torch.randn(5, 3)
    tensors = {"embed": shared, "shared": shared, "other": torch.randn(5, 3), "part": shared[:2]}
    save_tensors(tensors, {"step": 1}, tmp_path / "a.safetensors")
    loaded, metadata = load_tensors(tmp_path / "a.safetensors")
    assert metadata == {"step": 1}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    save_tensors({"shared": shared}, {}, tmp_path / "one.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("a", "one")]
    assert sizes[0] < sizes[1] + 400 + 60 + 24, "the shared weights are there twice"
