"""What a run says of its teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import distilvl
from distilvl.cli import app
from distilvl.evaluation.teacher import run_store, run_teacher, shares_space, turned
from distilvl.features import FeatureStore
from distilvl.students.storage import save_basis


def test_a_run_names_its_teacher_also_when_its_store_is_gone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    assert run_teacher(run) == ("colour", "1")
    assert "taught_by" not in json.loads((trained[1] / "result.json").read_text()), "it only had a teacher beside it"
    told = json.loads((run / "result.json").read_text())
    assert told["taught_by"] == {"teacher": "colour", "revision": "1"}
    del told["taught_by"]  # a run of an earlier version
    (run / "result.json").write_text(json.dumps(told))
    assert run_teacher(run) == ("colour", "1")
    assert FeatureStore.open(run_store(run) or "").manifest.teacher == "colour"
    shutil.rmtree(run / "features")
    assert run_store(run) is None
    assert run_teacher(run) is None


def test_only_a_student_that_learnt_from_its_teacher_is_in_its_space(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    assert [shares_space(run) for run in (*trained, None)] == [True, False, True]
    (tmp_path / "config.yaml").write_text("objective: {losses: [of_a_package_that_is_not_here]}")
    assert shares_space(tmp_path)


def test_features_are_turned_to_the_axes_of_the_student(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16)
    assert turned(features, None) is features
    assert turned(features, tmp_path) is features
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    save_basis(basis, tmp_path)
    found = turned(features, tmp_path)
    np.testing.assert_allclose(found, features.astype(np.float32) @ basis.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found @ found.T, features.astype(np.float64) @ features.T, atol=1e-2)
    wide = np.zeros((2, 6), np.float16)
    assert turned(wide, tmp_path) is wide


def test_the_runs_cross_scores_are_those_of_eval(trained: tuple[Path, Path]) -> None:
    result = json.loads((trained[0] / "result.json").read_text())
    found = distilvl.evaluate(trained[0], trained[0].parent / "pictures", split="val")
    assert found.cross is not None
    for name, score in found.cross.as_dict().items():
        assert result[name]["rsum"] == pytest.approx(score["rsum"])
        assert found.as_dict()[name] == score
    without = json.loads((trained[1] / "result.json").read_text())
    assert not found.cross.as_dict().keys() & without.keys()


def test_a_baseline_has_no_cross_scores_beside_a_teacher(trained: tuple[Path, Path]) -> None:
    found = distilvl.evaluate(trained[1], trained[0].parent / "pictures", split="val", features=trained[0] / "features")
    assert found.teacher is not None
    assert found.cross is None
    assert "student_images_teacher_texts" not in found.as_dict()


def test_eval_prints_them_in_a_line_and_as_json(trained: tuple[Path, Path]) -> None:
    command = ["eval", str(trained[0]), "--data", str(trained[0].parent / "pictures"), "--split", "val"]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    ways = (told[f"{name}_texts"]["rsum"] for name in ("student_images_teacher", "teacher_images_student"))
    line = "student's images with teacher's texts {:.1f}, teacher's images with student's texts {:.1f}\n"
    assert f"cross scores, RSUM: {line.format(*ways)}" in CliRunner().invoke(app, command).stdout
