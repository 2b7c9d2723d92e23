from __future__ import annotations

import io
import logging
import math
import re
import sys
from typing import Any

import pytest
from rich.console import Console

from distilvl.training.console import RunView, training_view


def _line(step: int, names: tuple[str, ...] = ("cd", "fd", "sd", "hnd"), value: float = 1.0) -> dict[str, Any]:
    return {
        "step": step, "epoch": step // 100, "loss": 4 * value, "losses": dict.fromkeys(names, value / step),
        "weight": dict.fromkeys(names, 1 + 0.001 * (step % 7)), "lr": {"towers": 1e-4, "heads": 2e-3},
        "pairs_per_s": 824.4,
    }  # fmt: skip


def _val(epoch: int, rsum: float) -> dict[str, Any]:
    return {"step": 100 * (epoch + 1), "epoch": epoch, "val": {"rsum": rsum}}


def _picture(
    lines: list[dict[str, Any]], total: int = 2000, done: int = 0, epochs: int = 20, width: int = 80
) -> list[str]:
    """The last thing that a terminal shows of a run with these readings, line by line."""
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=24,
        legacy_windows=False,
        _environ={"TERM": "xterm"},
    )
    with training_view(total, 0, epochs, console) as view:
        view.begin(lines, [])
        view.advance(done)
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().split("\x1b[2K")[-1]
    return [line.rstrip() for line in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|\r", "", last).splitlines() if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("losses", [1, 4, 7])
def test_the_view_fits_the_terminal(width: int, losses: int) -> None:
    names = ("cd", "fd", "sd", "hnd", "clipkd_interactive", "qd", "kd")[:losses]
    lines = [*(_line(step, names, 1e7) for step in range(10, 500, 10)), _val(3, 100.0)]
    picture = _picture(lines, done=490, width=width)
    assert max(map(len, picture)) <= width
    assert len(picture) <= 12
    words = " ".join(picture).split()
    assert [words.count(name) for name in names] == [2] * losses  # the loss and its weight


def test_losses_rates_and_the_best_epoch_are_there() -> None:
    lines = [_line(100), _val(0, 50.0), _line(200), _val(1, 250.5), _line(290), _val(2, 200.0)]
    text = "\n".join(_picture(lines, done=300, width=120))
    for part in ("epoch 3 of 20", "824 pairs/s", "lr towers 0.0001 heads 0.002", "best 250.5 after epoch 2", "300/2000",
                 "cd 0.003448", "raw losses", "weights", "left"):  # fmt: skip
        assert part in text, part


def test_a_loss_that_is_no_number_any_more_is_shown_as_such() -> None:
    assert " ".join(_picture([_line(10), _line(20, value=math.nan)])).count("nan") >= 4


def test_nothing_is_claimed_before_the_first_reading() -> None:
    picture = _picture([])
    assert "on their way" in picture[0]
    assert "0/2000" in picture[-1]


def test_logging_and_printing_stand_above_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("distilvl.test_live")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)
    console = Console(
        stderr=True, force_terminal=True, width=80, height=24, legacy_windows=False, _environ={"TERM": "xterm"}
    )
    with training_view(100, 0, 1, console) as view:
        assert isinstance(view, RunView)
        assert handler.stream is not screen
        view.line(_line(10))
        logger.warning("a warning from elsewhere")
        print("a line on stderr", file=sys.stderr)  # noqa: T201
    logger.removeHandler(handler)
    assert handler.stream is screen
    assert sys.stderr is screen
    shown = screen.getvalue()
    for text in ("a warning from elsewhere", "a line on stderr"):
        before, _, after = shown.partition(text)
        # The view's lines are cleared first, and it is drawn again on lines of its own.
        assert before.endswith(("\x1b[2K", "\r")) or before == "", repr(before[-40:])
        assert after.startswith("\n")


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("distilvl.io.progress.time.monotonic", lambda: now)
    with training_view(40, 10, 2) as view:
        view.begin([_line(10), _val(0, 50.0)], [_line(20)])
        for step in range(11, 41):
            now += 1.0
            view.line(_line(step))
            view.advance()
        view.end(False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("training: 40/40, 30 s, 0 s left  epoch 1  cd 0.025 fd 0.025")
    assert lines[-1].endswith("824 pairs/s  best val RSUM 50.0")


def test_another_process_than_the_first_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilvl.io.progress._silent", True)
    console = Console(stderr=True, force_terminal=True)
    with training_view(2, 0, 1, console) as view:
        view.advance(2)
    assert capsys.readouterr().err == ""
