"""`distilvl fit` as a command: photographs without captions become a model and an index of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from distilvl.cli import app


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distilvl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for k in range(60):
        picture = Image.new("RGB", (40, 30), (4 * k, 255 - 4 * k, 40 * (k % 5)))
        picture.save(folder / f"{k:02d}.png")
    return folder


def test_one_command_from_photographs_without_captions_to_an_index(
    photographs: Path, teacher: str, static_student: str, tmp_path: Path
) -> None:
    pytest.importorskip("lancedb")
    (tmp_path / "texts.txt").write_text("\n".join(f"{a} {b}" for a in "abcdefgh" for b in "ijklmnop"))
    out, index = tmp_path / "mine", tmp_path / "mine.index"
    command = ["fit", "--teacher", teacher, "--data", str(photographs), "--texts", str(tmp_path / "texts.txt"),
               "--student", static_student, "--out", str(out), "--index", str(index)]  # fmt: skip
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "60 photographs" in done.stdout
    assert "60 in the index have the teacher's stored embedding, 0 the model's own" in done.stdout
    found = run("search", str(index), "a b", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)
    again = run(*command, "--json")
    assert json.loads(again.stdout)["index"]["unchanged"] == 60


def test_an_index_is_of_a_folder() -> None:
    result = CliRunner().invoke(app, ["fit", "--data", "fotos", "--out", "x", "--index", "y"])
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert "Only where --data is a folder of photographs. There is no folder fotos." in said


def test_a_place_that_is_no_index_is_told_before_the_work(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    done = run("fit", "--data", str(photographs), "--out", str(tmp_path / "out"), "--index", str(photographs))
    assert done.returncode == 2
    assert "is there and is no index. Choose another folder for the index." in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    done = run("fit", "--data", "scenes", "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: a student is fitted to a teacher's features")
