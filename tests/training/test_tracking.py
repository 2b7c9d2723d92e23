from __future__ import annotations

import json
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import distilvl
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config
from distilvl.training import tracking
from distilvl.training.run_folder import MetricsLog
from distilvl.training.tracking import Relay, TrackedRun, Tracker, Tracking, flat_scalars, load_trackers


class Remembering:
    """A tracker that keeps what it is told in a list that outlives it."""

    def __init__(self, told: list[Any]) -> None:
        self.told = told

    def start(self, run: TrackedRun, known: str | None) -> str:
        self.told.append(("start", run.name, known))
        return known or "id-1"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.told.append((step, *sorted(scalars)))

    def finish(self, failed: bool) -> None:
        self.told.append(("finish", failed))


class Failing(Remembering):
    def __init__(self, told: list[Any], where: str) -> None:
        super().__init__(told)
        self.where = where

    def _reach(self, where: str) -> None:
        self.told.append(where)
        if where == self.where:
            raise ConnectionError(f"no way to {where}\nand more")

    def start(self, run: TrackedRun, known: str | None) -> str:
        self._reach("start")
        return "id-2"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._reach("log")

    def finish(self, failed: bool) -> None:
        self._reach("finish")


def _log(folder: Path, resume_step: int, **trackers: Tracker) -> MetricsLog:
    folder.mkdir(exist_ok=True)
    return MetricsLog(folder / "metrics.jsonl", resume_step, [Tracking(trackers, folder, load_config("demo"))])


def _step(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 0, "losses": {"cd": 1.0 / step}}


def test_a_resumed_run_continues_its_curves_and_sends_no_point_twice(tmp_path: Path) -> None:
    told: list[Any] = []
    with _log(tmp_path / "run", 0, mine=Remembering(told)) as log:
        for step in (10, 20, 30):
            log.write(_step(step))
    told.clear()
    # Killed after step 30, continued from a checkpoint at 20; at 30 the validation had not been written.
    with _log(tmp_path / "run", 20, mine=Remembering(told)) as log:
        log.write(_step(30))
        log.write({"step": 30, "epoch": 0, "val": {"rsum": 7.0}})
        log.write(_step(40))
    assert told == [
        ("start", "run", "id-1"),
        (30, "val/rsum"),
        (40, "epoch", "losses/cd"),
        ("finish", False),
    ]


def test_a_tracker_that_joins_late_is_sent_what_the_run_has_behind_it(tmp_path: Path) -> None:
    with _log(tmp_path / "run", 0) as log:
        for step in (10, 20, 30):
            log.write(_step(step))
    told: list[Any] = []
    with _log(tmp_path / "run", 20, mine=Remembering(told)) as log:
        log.write(_step(30))
    assert told == [("start", "run", None), *((step, "epoch", "losses/cd") for step in (10, 20, 30)), ("finish", False)]
    assert json.loads((tmp_path / "run" / "tracking.json").read_text(encoding="utf-8")) == {"mine": "id-1"}


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_warned_about_once_and_dropped(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    failing: list[Any] = []
    with (
        caplog.at_level(logging.WARNING, logger="distilvl"),
        _log(tmp_path / "run", 0, bad=Failing(failing, where), good=Remembering(told)) as log,
    ):
        for step in (1, 2, 3):
            log.write(_step(step))
    assert failing.count(where) == 1
    assert failing[-1] == where
    assert [record.getMessage() for record in caplog.records] == [
        f"the run goes on without bad, which failed (ConnectionError: no way to {where})"
    ]
    assert len(told) == 5
    assert len((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_the_trackers_are_told_of_a_run_that_failed(tmp_path: Path) -> None:
    told: list[Any] = []

    def stopped() -> None:
        with _log(tmp_path / "run", 0, mine=Remembering(told)) as log:
            log.write(_step(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert told[-1] == ("finish", True)


def test_a_tracker_that_hangs_holds_up_neither_the_run_nor_its_end(caplog: pytest.LogCaptureFixture) -> None:
    released = threading.Event()

    class Hanging(Remembering):
        def log(self, step: int, scalars: Mapping[str, float]) -> None:
            released.wait(60)

    relay = Relay("slow", Hanging([]), set(), finish_s=0.05)
    for step in range(1000):
        relay.send({"step": step, "loss": 1.0})
    with caplog.at_level(logging.WARNING, logger="distilvl"):
        relay.finish(False)
    released.set()
    assert "slow has not taken everything" in caplog.text


def test_damaged_ids_begin_new_curves(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracking.json").write_text("[1", encoding="utf-8")
    told: list[Any] = []
    with _log(tmp_path / "run", 0, mine=Remembering(told)):
        pass
    assert told[0] == ("start", "run", None)


def test_scalars_are_flat_and_numbers_only() -> None:
    line = {
        "step": 3,
        "epoch": 0,
        "loss": 2,
        "losses": {"cd": 1.5},
        "grad_norm": None,
        "val": {"a": {"r1": 3.0}},
        "x": True,
    }
    assert flat_scalars(line) == {"epoch": 0.0, "loss": 2.0, "losses/cd": 1.5, "val/a/r1": 3.0}


def test_settings_are_flat() -> None:
    run = TrackedRun("r", Path("r"), {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None})
    assert run.settings == {"a.b.c": 1, "a.d": [1, 2], "e": None}


def test_an_unknown_tracker_and_a_missing_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DistilvlError, match=r"no tracker 'tensorbord'.*tensorboard, wandb, mlflow, trackio"):
        load_trackers(["tensorbord"])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DistilvlError, match=r"needs the package wandb.*distilvl\[wandb\]"):
        load_trackers(["wandb"])
    assert load_trackers([]) == {}


def test_a_tracker_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", "collections:OrderedDict", tracking.GROUP)
    monkeypatch.setattr(tracking, "entry_points", lambda group: [point] if group == tracking.GROUP else [])
    assert type(load_trackers(["mine"])["mine"]) is OrderedDict
    with pytest.raises(DistilvlError, match=r"no tracker 'other'.*trackio, mine"):
        load_trackers(["other"])


def test_train_refuses_a_tracker_it_lacks_before_it_does_anything(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="no tracker 'nope'"):
        distilvl.train(data="scenes", teacher="demo", out=tmp_path / "run", log=["nope"])
    assert not (tmp_path / "run").exists()
