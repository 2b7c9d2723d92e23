"""Every command over every kind of thing that is left out: what it says, what it counts, how it ends.

docs/data.md has the tables that these runs give; with UPDATE_DOCS=1 in the environment they are written there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.errors import DistilvlError

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
KINDS = {"missing.png": "file is missing", "broken.png": "not an image", "bare.png": "no caption"}
TABLE = "title: One method\ncells:\n  - {name: four, label: four losses}\n"
QUICK = [f"--set=training.{item}" for item in ("batch_size=4", "epochs=1", "precision=fp32", "checkpoint_every=10")]


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and the error line, as the real command has them."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, DistilvlError):
        return 2, result.stdout, " ".join(str(result.exception).split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def draw(path: Path, k: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(image).rectangle((k % 20, k % 13, k % 20 + 9, k % 13 + 9), fill=COLOURS[k % 8])
    image.save(path)


def pictures(folder: Path, *kinds: str) -> Path:
    """16 good ones, half of them to learn from, and one of each kind in `val`."""
    lines = []
    for k in range(16):
        draw(folder / f"{k:02d}.png", k)
        split = ("train", "train", "val", "test")[k // 4]
        lines.append({"image": f"{k:02d}.png", "caption": f"a {COLOURS[k % 8]} box number {k}", "split": split})
    for kind in kinds:
        lines.append({"image": kind, "captions": [] if kind == "bare.png" else [f"the {kind}"], "split": "val"})
    draw(folder / "bare.png", 16)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return folder


def reasons(left_out: dict[str, Any]) -> dict[str, str]:
    """File name -> `1 (reason)`."""
    assert left_out["total"] == sum(one["count"] for one in left_out["reasons"].values())
    return {Path(name).name: f"{one['count']} ({reason})" for reason, one in left_out["reasons"].items()
            for name in one["names"]}  # fmt: skip


def documented(name: str, lines: list[str]) -> None:
    """That docs/data.md has these lines between the markers `name`; or write them there."""
    begin, end = f"<!-- {name}: made by {Path(__file__).name} -->\n", f"<!-- end of {name} -->"
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    old, after = rest.split(end)
    new = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_DOCS"):
        DOCS.write_text(before + begin + new + end + after, encoding="utf-8")
    else:
        assert old == new, "run this test with UPDATE_DOCS=1 and look at the difference"


def commands(place: Path, teacher: str, student: Path) -> dict[str, Callable[..., tuple[int, str, str]]]:
    """By name, each over a data set; `features` and `train` make what the others use."""
    (place / "mine.yaml").write_text(TABLE, encoding="utf-8")
    run, store = place / "run", place / "store"
    out = iter(place / f"out-{k}" for k in range(1000))

    def report(data: Path, *options: str) -> tuple[int, str, str]:
        page = next(out)
        code, _, error = call("report", run, "--data", data, "--no-timing", "--examples", 1, "--out", f"{page}.html",
                              "--markdown", f"{page}.md", "--json", f"{page}.json", *options)  # fmt: skip
        return code, "" if code else Path(f"{page}.json").read_text(encoding="utf-8"), error

    def to(name: str) -> Path:
        """The store or run that the others use, made by the first call; another one from then on."""
        return next(out) if (place / name).exists() else place / name

    return {
        "features": lambda data, *more: call("features", "--teacher", teacher, "--data", data, "--out", to("store"),
                                             "--json", *more),
        "train": lambda data, *more: call("train", "--features", store, "--data", data, "--student", student, "--out",
                                          to("run"), "--device", "cpu", "--json", *QUICK, *more),
        "eval": lambda data, *more: call("eval", run, "--data", data, "--split", "val", "--json", *more),
        "report": report,
        "export": lambda data, *more: call("export", run, "--data", data, "--out", next(out), "--precision", "fp32",
                                           "--max-drop", 600, "--json", *more),
        "reproduce": lambda data, *more: call("reproduce", place / "mine.yaml", "--data", data, "--features", store,
                                              "--student", student, "--out", next(out), "--seeds", 1, "--device", "cpu",
                                              "--json", *QUICK, *more),
    }  # fmt: skip


def left_out_in(command: str, text: str) -> dict[str, Any]:
    """What the JSON of a command says was left out."""
    answer = json.loads(text)
    if command == "reproduce":
        answer = answer["mine"]
    found: dict[str, Any] = answer["left_out"]["this report"] if command == "report" else answer["left_out"]
    return found


@pytest.mark.slow
def test_commands_over_data_sets(tmp_path: Path, teacher: str, student_yaml: Path) -> None:
    pytest.importorskip("onnxruntime")
    whole = pictures(tmp_path / "all" / "photos", *KINDS)
    single = {kind: pictures(tmp_path / kind / "photos", kind) for kind in KINDS}
    lines = ["| command | kind | without `--skip-bad` | with it |", "|---|---|---|---|"]
    for name, command in commands(tmp_path, teacher, student_yaml).items():
        code, text, error = command(whole, "--skip-bad")
        assert code == 0, (name, error)
        counted = reasons(left_out_in(name, text))
        assert set(counted) == set(KINDS), name
        for kind, data in single.items():
            refused, _, said = command(data)
            assert refused == 2, (name, kind, said)
            assert "--skip-bad" in said, (name, kind, said)
            assert kind in said, (name, kind, said)
            said = said.replace(f"{data.parent}/", "").replace(f"{tmp_path}/", "").replace("|", "\\|")
            lines.append(
                f"| `{name}` | {kind.partition('.')[0]} | {refused}: {said} | {code}: left out {counted[kind]} |"
            )
    documented("commands by kind", lines)
    kept = [tmp_path / "run" / "student" / "README.md", *tmp_path.glob("out-*.html"), *tmp_path.glob("out-*.md")]
    assert len(kept) == 3
    for path in kept:
        page = path.read_text(encoding="utf-8").replace("\\", "")
        assert all(kind in page for kind in KINDS), path
    for folder in ("store", "run"):
        saved = json.loads((tmp_path / folder / "left-out.json").read_text(encoding="utf-8"))["sources"]
        assert {kind for one in saved.values() for kind in reasons(one)} == set(KINDS)
    manifest = next(path for path in tmp_path.glob("out-*/manifest.json") if "scores" in path.read_text())
    scores = json.loads(manifest.read_text(encoding="utf-8"))["scores"]
    assert set(reasons(scores["left_out"])) == set(reasons(scores["run_left_out"])) == set(KINDS)

    # What was skipped is remembered by what builds on it, although the data are whole by now.
    whole_now = pictures(tmp_path / "good" / "photos")
    code, text, _ = commands(tmp_path, teacher, student_yaml)["train"](whole_now)
    assert (code, set(reasons(left_out_in("train", text)))) == (0, set(KINDS))


def _spoilt(folder: Path) -> Iterator[tuple[str, str]]:
    """File and kind of everything that an index leaves out, written to `folder`."""
    folder.mkdir(parents=True)
    for name, kind in (("IMG_1.HEIC", "HEIC without its plugin"), ("broken.jpg", "damaged"), ("empty.jpg", "empty")):
        (folder / name).write_bytes(b"" if name == "empty.jpg" else b"no picture")
        yield name, kind
    os.mkfifo(folder / "pipe.jpg")
    yield "pipe.jpg", "a pipe"
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    yield "nowhere.jpg", "a link to nothing"
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    yield "loop.jpg", "a link to itself"
    draw(folder / ".hidden" / "a.png", 1)
    yield ".hidden", "a hidden folder"
    draw(folder / "@eaDir" / "b.png", 2)
    yield "@eaDir", "thumbnails of a NAS"
    draw(folder / "#recycle" / "c.png", 3)
    yield "#recycle", "a waste bin"
    draw(folder / "shut" / "d.png", 4)
    yield "shut", "a folder that cannot be listed"


def _close(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path).name == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.slow
def test_index_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb")
    folder, out = tmp_path / "photos", tmp_path / "index"
    kinds = dict(_spoilt(folder))
    _close("shut", monkeypatch)
    code, _, error = call("index", folder, "--model", "demo", "--out", out)
    assert code == 2, "nothing is there that can be indexed"
    assert error.startswith(f"nothing in {folder} can be indexed; left out ")
    assert not out.exists()
    draw(folder / "good.png", 5)
    code, text, _ = call("index", folder, "--model", "demo", "--out", out, "--json")
    assert (code, json.loads(text)["added"]) == (0, 1)
    counted = reasons(json.loads(text)["left_out"])
    again = reasons(json.loads(call("index", folder, "--out", out, "--json")[1])["left_out"])
    searched = reasons(json.loads(call("search", out, "a box", "--json")[1])["left_out"])
    assert counted == again == searched
    assert {name for name in kinds if not any(name in told.split("/") for told in _paths(text))} == set()
    printed = call("index", folder, "--out", out)[1]
    assert printed.count("\nleft out ") == len(set(counted.values()))

    lines = ["| kind | `index` says |", "|---|---|"]
    for name, kind in kinds.items():
        told = next(counted[Path(path).name] for path in _paths(text) if name in path.split("/"))
        lines.append(f"| {kind} (`{name}`) | {re.sub('^[0-9]+ ', '', told)[1:-1]} |")
    documented("index by kind", lines)


def _paths(text: str) -> list[str]:
    return [name for one in json.loads(text)["left_out"]["reasons"].values() for name in one["names"]]


@pytest.mark.slow
def test_the_real_command_says_it_at_the_end(tmp_path: Path, teacher: str) -> None:
    data = pictures(tmp_path / "photos", *KINDS)
    command = [sys.executable, "-m", "distilvl", "features", "--teacher", teacher, "--data", str(data), "--out",
               str(tmp_path / "store")]  # fmt: skip
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 2
    assert re.search(r"^error: .*missing\.png.*\(1 of 19.*--skip-bad", refused.stderr, re.MULTILINE)
    done = subprocess.run([*command, "--skip-bad"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert re.search(rf"^left out 1 \(.*\): .*{kind}$", done.stdout, re.MULTILINE), done.stdout
