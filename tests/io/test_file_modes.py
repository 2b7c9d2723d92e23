"""What is written can be read by whom the umask allows, not by its owner alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from distilvl.io.files import give_usual_modes, write_atomically
from distilvl.students import build_student, save_student
from distilvl.students.storage import save_basis
from distilvl.training.run_folder import save_tensors

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
UMASKS = (0o022, 0o027, 0o077)
DISTILVL = "import sys; from distilvl.cli import main; sys.exit(main())"


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(scope="module")
def student() -> Any:
    return build_student("demo", 12, captions=["a red circle", "a blue square"])


def modes(folder: Path) -> dict[str, str]:
    """Of all files and folders, by name."""
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in sorted(folder.rglob("*"))}


def expected(folder: Path, umask: int) -> dict[str, str]:
    """What a program that opens files and makes folders would have given them."""
    return {
        str(path.relative_to(folder)): oct((0o777 if path.is_dir() else 0o666) & ~umask)
        for path in sorted(folder.rglob("*"))
    }


def test_weights(umask: int, student: Any, tmp_path: Path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_student(student, folder / "student")
    save_basis(torch.eye(4), folder / "student")
    save_tensors({"a": torch.zeros(3)}, {}, folder / "last.safetensors")
    write_atomically(folder / "result.json", b"{}")
    assert len(list(folder.rglob("*.safetensors"))) >= 6
    assert modes(folder) == expected(folder, umask)


def test_a_disk_without_modes_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "weights"
    file.touch(0o600)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no modes here")

    monkeypatch.setattr(Path, "chmod", refuse)
    give_usual_modes(file)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def start(umask: int, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", DISTILVL, *arguments], umask=umask, capture_output=True, text=True, timeout=500,
            check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return start


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_everything_that_commands_write(umask: int, run: Callable[..., None], tmp_path: Path):
    for package in ("onnx", "onnxscript", "onnxruntime", "lancedb"):
        pytest.importorskip(package)
    photos = tmp_path / "photos"
    photos.mkdir()
    lines = ["image,caption,split"]
    for k, split in enumerate(["train"] * 8 + ["val"] * 6):
        Image.new("RGB", (40, 40), (15 * k, 90, 200 - 9 * k)).save(photos / f"{k}.png")
        lines.append(
            f"{k}.png,a {('red', 'blue', 'green')[k % 3]} {('circle', 'star')[k % 2]} and {k * 'a '}square,{split}"
        )
    (photos / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = tmp_path / "made"
    made.mkdir()
    data = ("--data", str(photos))
    run(umask, "train", "--teacher", "demo", *data, "--student", "demo", "--recipe", "demo", "--out", "made/run",
        "--set", "training.epochs=1", "--set", "training.batch_size=4", "--pixel-cache", "made/pixels")  # fmt: skip
    run(umask, "features", "--teacher", "demo", *data, "--out", "made/store", "--views", "2")
    run(umask, "features", "merge", "made/store", "--out", "made/merged")
    run(umask, "export", "made/run", *data, "--split", "val", "--max-drop", "600", "--out", "made/exported")
    run(umask, "index", str(photos), "--model", "made/run", "--out", "made/index")
    run(umask, "report", "made/run")
    names = {path.name for path in made.rglob("*")}
    assert {"result.json", "report.html", "last.safetensors", "manifest.json", "distilvl-index.json"} <= names
    assert modes(made) == expected(made, umask)
