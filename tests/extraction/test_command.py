"""`distilvl features` on data without pairs, and on views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.data.crops import Crops
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore

TEACHER = """
import numpy as np

class LetterTeacher:
    name, revision, dim = "letters", "1", 3

    def encode_images(self, images):
        return np.stack([np.asarray(image, dtype=np.float64).mean(axis=(0, 1)) + 1 for image in images])

    def encode_texts(self, texts):
        return np.array([[len(text), text.count("a") + 1, 1.0] for text in texts])
"""


@pytest.fixture
def command(tmp_path: Path, pictures: PairDataset) -> list[str]:
    """Asks a teacher about eleven distinct images and, unlinked, two texts."""
    (tmp_path / "letters.py").write_text(TEACHER, encoding="utf-8")
    (tmp_path / "texts.txt").write_text("a boat\na cup\n", encoding="utf-8")
    data = f"unpaired:{Path(pictures[0].image.name).parent},{tmp_path / 'texts.txt'}"
    return ["--teacher", f"{tmp_path / 'letters.py'}:LetterTeacher", "--data", data, "--out", str(tmp_path / "store")]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["features", *arguments])
    if isinstance(result.exception, DistilvlError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_both_sides_of_unpaired_data_are_asked(command: list[str]) -> None:
    assert "holds 11 images and 2 captions of letters; extracted now: 11 and 2" in run(*command)
    with pytest.raises(DistilvlError, match="has no splits"):
        run(*command, "--split", "train")


def test_views(command: list[str], tmp_path: Path) -> None:
    options = ["--views", "3", "--view-seed", "5", "--view-scale", "0.3,0.6", "--view-flip"]
    assert "holds 33 images and crops and 2 captions of letters; extracted now: 33 and 2" in run(*command, *options)
    store = FeatureStore.open(tmp_path / "store")
    assert store.manifest.views == Crops(count=3, seed=5, scale=(0.3, 0.6), flip=True)
    assert "11 images, 22 crops of them and 2 captions" in run("verify", str(store.path))
    assert json.loads(run("verify", str(store.path), "--json"))[str(store.path)]["views"] == 22
    assert json.loads(run("info", str(store.path), "--json"))[0]["views"]["count"] == 3


def test_a_scale_that_is_none(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="not two numbers"):
        run(*command, "--views", "2", "--view-scale", "half")
    assert not (tmp_path / "store").exists()
