from __future__ import annotations

import pytest

from distilvl.io import progress as module
from distilvl.io.progress import progress


def test_a_pipe_gets_plain_lines_with_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress("reading", 100, 20) as ticker:
        for _ in range(80):
            now += 1.0
            ticker.advance(1, note="fine")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 8
    assert lines[0] == "reading: 30/100, 10 s, 70 s left  fine"
    assert lines[-1] == "reading: 100/100, 80 s, 0 s left  fine"


def test_the_clock_leaves_the_first_batch_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert module.time_ms(lambda: work(2.0)) == 2000.0
    assert module.median_ms(work, [9.0, 1.0, 3.0, 0.5]) == 1000.0
