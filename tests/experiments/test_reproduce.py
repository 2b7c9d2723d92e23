"""`reproduce` with real, small runs: what it writes, what it shares, and what it does after a kill."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.experiments.cells import Base, TableSpec, load_table, plan
from distilvl.experiments.grid import run_job
from distilvl.experiments.reproduce import collect, dry_run, reproduce
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.students import load_student

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
QUICK = ("training.batch_size=8", "training.epochs=2", "training.precision=fp32", "objective.cd.queue=16")


@pytest.fixture
def base(tmp_path: Path, student_yaml: Path) -> Base:
    """48 pictures in three splits with made-up teacher features, and a student of a few thousand weights."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    lines = ["image,caption,split"]
    for k in range(48):
        image = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(image).rectangle((k % 20, k % 13, k % 20 + 9, k % 13 + 9), fill=COLOURS[k % 8])
        image.save(folder / f"{k:02d}.png")
        lines.append(f"{k:02d}.png,a {COLOURS[k % 8]} box number {k},{('train', 'train', 'val', 'test')[k // 12]}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    records = list(load_dataset(folder))
    features = rng.normal(size=(48, 12))
    store = FeatureStore.create(tmp_path / "store", Manifest(teacher="made-up", revision="1", dim=12))
    store.add("image", [image_key(record.image.read()) for record in records], features)
    store.add("text", [text_key(record.captions[0]) for record in records], features + rng.normal(size=(48, 12)) / 4)
    return Base("default", str(folder), str(tmp_path / "store"), str(student_yaml), QUICK, "test")


TABLE = {
    "name": "mine",
    "title": "Two methods",
    "cells": [
        {"name": "four", "label": "four losses", "paper": {"rsum": 528.8}},
        {"name": "kd", "label": "KD", "method": "kd", "paper": {"rsum": 444.4}},
    ],
    "claims": [{"text": "four losses beat KD", "better": "four", "than": ["kd"]}],
}


def test_a_cell_is_trained_and_scored_on_the_asked_split(base: Base, tmp_path: Path) -> None:
    table = TableSpec.model_validate(TABLE)
    jobs = plan(table, base, (0, 1), tmp_path / "out")
    assert run_job(jobs[0], "cpu").failure is None
    found = jobs[0].read_score()
    assert found.rsum == pytest.approx(sum((*found.image_to_text, *found.text_to_image)))
    assert json.loads((jobs[0].folder / "result.json").read_text())["split"] == "val"
    assert (jobs[0].folder / "student" / "modules.json").is_file()
    assert not (jobs[0].folder / "checkpoints").exists()
    failed = next(job for job in jobs if job.cell == "kd")
    failed.folder.mkdir(parents=True)
    failed.failure_file.write_text("some reason\n", encoding="utf-8")
    result = collect(table, jobs, base, "the command")
    assert [score.seed for score in result.scores["four"]] == [0]
    assert result.scores["kd"] == ()
    assert result.failures == {"kd": "some reason"}
    assert result.teacher_rsum is not None
    assert result.teacher_rsum > 300  # its two sides are nearly the same vectors
    assert result.conditions["seeds"] == "0, 1"


def test_a_run_that_fails_is_an_outcome_with_its_reason(base: Base, tmp_path: Path) -> None:
    table = TableSpec.model_validate(
        {"name": "t", "title": "t", "cells": [{"name": "far", "label": "l", "set": ["optimizer.lr=1e30"]}]}
    )
    job = plan(table, base, (0,), tmp_path / "out")[0]
    outcome = run_job(job, "cpu")
    assert outcome.failure is not None
    assert job.failure == outcome.failure
    assert not job.done


def test_a_student_is_the_teacher_of_the_next_generation(base: Base, tmp_path: Path) -> None:
    cells = [
        *TABLE["cells"],
        {"name": "again", "label": "l", "teacher": "four"},
        {"name": "third", "label": "l", "teacher": "again"},
    ]
    table = TableSpec.model_validate({**TABLE, "cells": cells})
    result = reproduce([table], base, tmp_path / "out", seeds=(0,), workers=2, accelerator="cpu")[0].result
    assert {name: len(found) for name, found in result.scores.items()} == {"four": 1, "kd": 1, "again": 1, "third": 1}
    four, _, again, third = plan(table, base, (0,), tmp_path / "out")
    assert (again.generation, third.generation, third.config.inputs.features) == (
        1,
        2,
        str(again.folder / "embeddings"),
    )
    found = FeatureStore.open(four.folder / "embeddings")
    student = load_student(four.folder / "student")
    data = load_dataset(base.data).split("test")
    rows = found.texts([text_key(record.captions[0]) for record in data]).astype(np.float32)
    np.testing.assert_allclose(rows, student.encode(data.captions), atol=2e-3)
    assert (
        result.teacher_rsum
        == four.read()["teacher_rsum"]
        != again.read()["teacher_rsum"]
        == pytest.approx(four.read_score().rsum, abs=10)
    )


def test_a_student_whose_teacher_failed_says_so(base: Base, tmp_path: Path) -> None:
    cells = [
        {"name": "far", "label": "l", "set": ["optimizer.lr=1e30"]},
        {"name": "again", "label": "l", "teacher": "far"},
    ]
    table = TableSpec.model_validate({"name": "t", "title": "t", "cells": cells})
    result = reproduce([table], base, tmp_path / "out", seeds=(0,), workers=1, accelerator="cpu")[0].result
    assert result.failures["again"].startswith("its teacher, the student of far, is not there.")


def test_towers_that_cannot_be_trained_are_refused_before_any_run(base: Base, tmp_path: Path) -> None:
    few = replace(base, overrides=(*QUICK, "student.text.config.max_position_embeddings=20"))
    with pytest.raises(DistilvlError, match="max_length is 48, but it has 20 positions"):
        reproduce([TableSpec.model_validate(TABLE)], few, tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()


def test_a_dry_run_names_the_cells_and_the_time_and_runs_nothing(base: Base, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = dry_run(
        [TableSpec.model_validate(TABLE), load_table("table6")], base, out, seeds=(0, 1), accelerator="cpu"
    )
    assert planned.todo == 6, "a run that two tables share counts once"
    assert planned.seconds is not None
    assert planned.seconds > 0
    assert "kd: 0 of 2 seeds done" in planned.text()
    heads = replace(base, overrides=(*base.overrides, "student.image.frozen=true", "student.text.frozen=true"))
    planned = dry_run([TableSpec.model_validate(TABLE)], heads, out, seeds=(0,), accelerator="cpu")
    assert planned.as_dict()["seconds"] is None, "a pass of the towers would tell nothing of a step of the heads"
    assert "runs to do, how long they take is known when one is done" in planned.text()
    assert not out.exists()


@pytest.mark.slow
def test_two_workers_fill_the_table_and_a_second_call_runs_nothing(base: Base, tmp_path: Path) -> None:
    table, out = TableSpec.model_validate(TABLE), tmp_path / "out"
    (first,) = reproduce([table], base, out, seeds=(0, 1), workers=2, accelerator="cpu", command="c")
    assert {name: len(scores) for name, scores in first.result.scores.items()} == {"four": 2, "kd": 2}
    assert [path.name for path in first.files] == ["mine.md", "mine.csv", "mine.json"]
    rows = list(csv.DictReader(io.StringIO((out / "mine.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 4
    assert "four losses beat KD" in first.text
    stamps = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    (second,) = reproduce([table], base, out, seeds=(0, 1), workers=2, accelerator="cpu", command="c")
    assert second.text == first.text
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()} == stamps


@pytest.mark.slow
def test_a_killed_reproduce_continues_to_the_same_table(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({key: value for key, value in TABLE.items() if key != "name"}), encoding="utf-8")

    def command(out: Path) -> list[str]:
        sets = [part for item in base.overrides for part in ("--set", item)]
        return [
            sys.executable, "-m", "distilvl", "reproduce", str(path), "--data", base.data, "--features",
            base.features, "--student", str(base.student), "--split", "test", "--seeds", "2", "--device", "cpu",
            "--out", str(out), *sets,
        ]  # fmt: skip

    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = subprocess.Popen(command(killed), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(killed.glob("runs/*/score-test.json"))) < 2:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("runs/*/score-test.json")}
    assert 2 <= len(finished) < 4

    subprocess.run(command(killed), check=True, capture_output=True, timeout=300)
    subprocess.run(command(undisturbed), check=True, capture_output=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished runs were run again"
    scores = [_without_times(out / "mine.json") for out in (killed, undisturbed)]
    assert scores[0] == scores[1]


def _without_times(path: Path) -> object:
    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if "seconds" not in key and key != "conditions"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_reported_with_the_remedy(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilvl.experiments.grid.run_job", _die)
    with pytest.raises(DistilvlError, match="Run the same command again"):
        reproduce([TableSpec.model_validate(TABLE)], base, tmp_path / "out", seeds=(0,), accelerator="cpu")


def _die(job: object, accelerator: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_tables_without_any_finished_run_still_render(base: Base, tmp_path: Path) -> None:
    table = load_table("table4")
    jobs = plan(table, base, (0,), tmp_path)
    result = collect(table, jobs, base, "c")
    assert all(scores == () for scores in result.scores.values())
    assert result.teacher_rsum is None
