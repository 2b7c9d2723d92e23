"""`distilvl export --browser`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilvl.browser.npm import PACKAGES
from distilvl.cli import app
from distilvl.data import PairDataset
from distilvl.errors import DistilvlError

pytestmark = pytest.mark.slow
runner = CliRunner()


@pytest.fixture
def few(scenes: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data scenes` means the scenes of these tests; the libraries are empty files."""
    names = {name: b"" for package in PACKAGES for name in package.files.values()}
    monkeypatch.setattr("distilvl.training.inputs.load_any", lambda source, skip_bad: scenes)
    monkeypatch.setattr("distilvl.browser.web_files", lambda folder: names)


@pytest.mark.usefixtures("few")
def test_the_page_lies_in_the_exported_folder(exported: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["export", str(exported.parent / "student"), "--out", str(out), "--data", "scenes", "--split", "test",
               "--precision", "fp32", "--browser", str(photos)]  # fmt: skip
    for _ in range(2):  # the second replaces the first
        done = runner.invoke(app, [*command, "--json"])
        assert done.exit_code == 0, done.output
        bundle = json.loads(done.stdout)["browser"]
        assert bundle["folder"] == str(out / "browser")
        assert (bundle["pictures"], bundle["left_out"]["total"]) == (200, 0)
        assert (out / "browser" / "index.html").is_file()
        assert (out / "browser" / "text.onnx").read_bytes() == (out / "text.fp32.onnx").read_bytes()
    done = runner.invoke(app, command)
    assert f"--directory {out / 'browser'}" in done.output


@pytest.mark.parametrize(("photos_folder", "message"), [("nowhere", "nowhere"), (".", "npm pack")])
def test_what_is_missing_is_said_before_the_student_is_exported(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos_folder: str, message: str
) -> None:
    def exporting(*_: object) -> None:
        raise AssertionError("it was exported")

    monkeypatch.setattr("distilvl.export.export_student", exporting)
    command = ["export", str(exported.parent / "student"), "--out", str(tmp_path / "out"), "--data", "scenes",
               "--browser", str(tmp_path / photos_folder), "--npm-files", str(tmp_path)]  # fmt: skip
    done = runner.invoke(app, command)
    assert isinstance(done.exception, DistilvlError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()
