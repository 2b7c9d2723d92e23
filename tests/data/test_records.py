"""Splits by name, and `all` of them, in the commands that take splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.data import FileImage, UnpairedDataset, UnpairedImage
from distilvl.data.left_out import TOO_LARGE
from distilvl.data.records import LARGEST_FILE
from distilvl.data.scenes import scenes_dataset
from distilvl.errors import BadImageError, DistilvlError

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown", "black")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine drawn pictures in three splits, as files."""
    (tmp_path / "data").mkdir()
    lines = []
    for k, split in enumerate(["train", "val", "test"] * 3):
        Image.new("RGB", (8, 8), (20 * k, 0, 0)).save(tmp_path / "data" / f"{k}.png")
        lines.append(json.dumps({"image": f"{k}.png", "captions": [f"a {COLOURS[k]} circle"], "split": split}))
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("splits", "images"), [(["all"], 9), (["val"], 3), (["val", "val", "test"], 6), (["val", "all"], 9)]
)
def test_features_of_splits(folder: Path, tmp_path: Path, splits: list[str], images: int) -> None:
    named = [word for split in splits for word in ("--split", split)]
    out = tmp_path / "store"
    done = CliRunner().invoke(
        app, ["features", "--teacher", "demo", "--data", str(folder), "--out", str(out), *named, "--json"]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["asked_images"] == images
    scored = CliRunner().invoke(app, ["eval", str(out), "--data", str(folder), "--split", splits[-1], "--json"])
    assert scored.exit_code == 0, (scored.output, scored.exception)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a hole, which takes no room
    with pytest.raises(BadImageError, match=r"huge\.jpg has more than 2,147,483,648 bytes.*--skip-bad") as raised:
        FileImage(str(tmp_path / "huge.jpg")).read()
    assert raised.value.reason == TOO_LARGE


def test_a_split_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        DistilvlError, match=r"split 'tset' of scenes is empty.*train \(2\), val \(1\), test \(3\); or all"
    ):
        scenes_dataset(train=2, val=1, test=3).split("tset")


def test_what_a_dataset_is_is_shown() -> None:
    shown = repr(scenes_dataset(train=3, val=2, test=1))
    assert shown == "PairDataset('scenes': 6 images (3 train, 2 val, 1 test), 30 captions)"
    unpaired = UnpairedDataset("few", (UnpairedImage("a", FileImage("a.png")),), ("one", "two"))
    assert repr(unpaired) == "UnpairedDataset('few': 1 images, 2 texts)"
