from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distilvl.errors import DistilvlError
from distilvl.io.files import machine_id, writer_id
from distilvl.reports.run import read_run, read_runs


def _grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_finished_run(make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]) -> None:
    run = read_run(make_run("done", lines, finished_result), "done")
    assert run.state.kind == "finished"
    assert run.steps_per_epoch == 10
    assert len(run.steps) == 20
    assert run.best is not None
    assert run.best["val"]["rsum"] == 300.0
    assert run.command.endswith("config.yaml --out " + str(run.folder.path) + "-again")


def test_a_run_that_still_grows_is_going_and_says_how_far_it_is(make_run: Any, lines: list[dict[str, Any]]) -> None:
    run = read_run(make_run("going", lines[:14], overrides=("training.epochs=4",)), "going")
    assert run.state.kind == "going"
    assert "step 13 of 40, in epoch 2 of 4" in run.state.text
    # 27 steps of 64 pairs at 40 pairs a second
    assert "About 43 s of training are left" in run.state.text


def test_a_quiet_run_has_stopped_and_says_for_how_long(make_run: Any, lines: list[dict[str, Any]]) -> None:
    folder = make_run("quiet", lines[:14])
    _grow_old(folder / "metrics.jsonl", 7300)
    run = read_run(folder, "quiet")
    assert run.state.kind == "stopped"
    assert "Nothing was written for 2.0 h" in run.state.text
    assert "no checkpoint" in run.state.text
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.safetensors").write_bytes(b"")
    assert "continues it" in read_run(folder, "quiet").state.text


def test_a_run_whose_process_is_gone_has_crashed_at_once(make_run: Any, lines: list[dict[str, Any]]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    for name, kept in (("killed", lines[:14]), ("early", [])):
        folder = make_run(name, kept)
        (folder / "process.json").write_text(json.dumps({"writer": f"m{machine_id()}-p{child.pid}"}), encoding="utf-8")
        run = read_run(folder, name)
        assert run.state.kind == "stopped"
        assert run.state.text.startswith("Crashed: its process is gone")
    folder = make_run("alive", lines[:14])
    (folder / "process.json").write_text(json.dumps({"writer": writer_id()}), encoding="utf-8")
    assert read_run(folder, "alive").state.kind == "going"


def test_a_run_that_failed_says_why(make_run: Any, lines: list[dict[str, Any]]) -> None:
    folder = make_run("failed", lines[:14])
    process = {"writer": writer_id(), "error": "DistilvlError: the disk is full. Free space."}
    (folder / "process.json").write_text(json.dumps(process), encoding="utf-8")
    run = read_run(folder, "failed")
    assert run.state.kind == "stopped"
    assert run.state.text.startswith(
        "Failed: DistilvlError: the disk is full. Free space. Nothing was written for 0 s."
    )


def test_slow_runs_are_given_more_time_before_they_are_called_stopped(
    make_run: Any, lines: list[dict[str, Any]]
) -> None:
    for line in lines:
        line["pairs_per_s"] = 0.5  # 64 pairs a step, 10 steps a line: 1,280 s between two lines
    folder = make_run("slow", lines[:14])
    _grow_old(folder / "metrics.jsonl", 7300)
    assert read_run(folder, "slow").state.kind == "going"


def test_damaged_files_of_a_crash_are_mentioned_and_do_no_harm(make_run: Any, lines: list[dict[str, Any]]) -> None:
    folder = make_run("crashed", lines[:12])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'\x00\xff\n[1, 2]\n{"step": 13, "epo')
    (folder / "result.json").write_text("{", encoding="utf-8")
    (folder / "environment.json").write_text("[]", encoding="utf-8")
    _grow_old(folder / "metrics.jsonl", 3600)
    run = read_run(folder, "crashed")
    assert run.state.kind == "stopped"
    assert "3 damaged" in run.state.text
    assert "result.json cannot be read" in run.state.text
    assert len(run.steps) == 11
    assert run.environment == {}


def test_a_loss_that_is_not_finite_is_named(make_run: Any, lines: list[dict[str, Any]]) -> None:
    lines[3]["losses"]["cd"] = float("nan")
    assert "last logged loss of cd is not finite" in read_run(make_run("nan", lines[:4]), "nan").state.text


def test_a_run_without_a_line_has_not_begun(make_run: Any) -> None:
    run = read_run(make_run("young", []), "young")
    assert run.state.kind == "not begun"
    assert run.best is None


def test_a_single_epoch_says_so(make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]) -> None:
    run = read_run(make_run("one", lines[:11], finished_result, ("training.epochs=1",)), "one")
    assert "1 epoch, so its curves have a single validation" in run.state.text


def test_names_tell_runs_apart(make_run: Any, lines: list[dict[str, Any]]) -> None:
    a, b, c = make_run("x/same", lines), make_run("y/same", lines), make_run("other", lines)
    assert [run.name for run in read_runs([a, b, c])] == [str(a), str(b), "other"]
    with pytest.raises(DistilvlError, match="twice"):
        read_runs([a, a])


def test_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(DistilvlError, match="not a run folder"):
        read_run(tmp_path, "x")
