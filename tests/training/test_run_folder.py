from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distilvl.errors import DistilvlError
from distilvl.io.files import writer_id
from distilvl.training.run_folder import (
    PROCESS_NAME,
    Line,
    MetricsLog,
    load_tensors,
    pack_state,
    read_metrics,
    save_tensors,
    unpack_state,
)


def test_resuming_drops_lines_that_will_come_again_and_a_cut_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (10, 20, 30):
        log.write({"step": step, "loss": step / 10})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 40, "lo')
    assert [line["step"] for line in read_metrics(path)] == [10, 20, 30]
    MetricsLog(path, 20).write({"step": 30, "loss": 7.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(10, 1.0), (20, 2.0), (30, 7.0)]


class Hearing:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        self.heard.append(([line["step"] for line in kept], [line["step"] for line in dropped]))

    def line(self, line: Line) -> None:
        self.heard.append(line["step"])

    def end(self, failed: bool) -> None:
        self.heard.append(failed)


def test_listeners_hear_what_was_there_every_line_and_the_end(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    for step in (10, 20, 30):
        log.write({"step": step})
    one, two = Hearing(), Hearing()
    with MetricsLog(tmp_path / "metrics.jsonl", 20, [one, two]) as log:
        log.write({"step": 30})
    assert one.heard == two.heard == [([10, 20], [30]), 30, False]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("no such thing"), "ValueError: no such thing"), (KeyboardInterrupt(), "stopped by hand")],
)
def test_how_a_process_ended_stays_beside_the_log(error: BaseException, reason: str, tmp_path: Path) -> None:
    process = tmp_path / PROCESS_NAME
    hearing = Hearing()

    def fail() -> None:
        with MetricsLog(tmp_path / "metrics.jsonl", 0, [hearing]):
            assert json.loads(process.read_text(encoding="utf-8")) == {"writer": writer_id()}
            raise error

    with pytest.raises(type(error)):
        fail()
    assert json.loads(process.read_text(encoding="utf-8")) == {"writer": writer_id(), "error": reason}
    assert hearing.heard == [([], []), True]
    with MetricsLog(tmp_path / "metrics.jsonl", 0):
        pass
    assert not process.exists()


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
