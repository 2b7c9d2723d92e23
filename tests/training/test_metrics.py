from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distilvl.io.files import writer_id
from distilvl.training.run_folder import PROCESS_NAME, Line, MetricsLog, SilentLog, read_metrics


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


def test_a_silent_log_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SilentLog() as log:
        log.write({"step": 1})
    assert list(tmp_path.iterdir()) == []
