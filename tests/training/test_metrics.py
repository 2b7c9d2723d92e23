from __future__ import annotations

from pathlib import Path

from distilvl.training.metrics import MetricsLog, read_metrics


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
