from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.data import PairDataset
from distilvl.runtime import Runtime

runner = CliRunner()


@pytest.fixture
def few(scenes: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data scenes` means the few scenes of these tests."""
    monkeypatch.setattr("distilvl.training.inputs.load_any", lambda source, skip_bad: scenes)


@pytest.mark.usefixtures("few")
def test_a_table_and_a_folder(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["export", str(run_folder), "--out", str(out), "--data", "scenes", "--precision", "fp32"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "fp32" in done.output
    assert "torch" in done.output
    assert Runtime.load(out).encode_texts(["a red circle"]).shape == (1, 16)


@pytest.mark.usefixtures("few")
def test_json(run_folder: Path, tmp_path: Path) -> None:
    command = ["export", str(run_folder / "student"), "--out", str(tmp_path / "out"), "--data", "scenes",
               "--precision", "fp32", "--teacher", "demo", "--json"]  # fmt: skip
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["rows"]] == ["teacher", "torch", "fp32"]
    assert found["rows"][0]["rsum"] > found["rows"][1]["rsum"]
    assert found["images"] < 100
    assert found["note"].startswith(f"val has only {found['images']} images")
    assert f"note: {found['note']}" in done.stderr


def test_refusals_are_one_line_and_exit_code_2(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from distilvl.cli import main

    command = ["distilvl", "export", str(run_folder), "--out", str(tmp_path / "out"), "--data", "scenes"]
    monkeypatch.setattr(sys, "argv", [*command, "--precision", "int3"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: dtype 'int3' is unknown")
    assert list(tmp_path.iterdir()) == []
