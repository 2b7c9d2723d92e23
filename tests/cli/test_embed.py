"""`distilvl embed`, as a subprocess: a dataset, files, texts; what it writes is read by the other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.cli import app
from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.models.loading import load_encoder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for k, place in enumerate(("a.png", "b.png", "more/c.png")):
        Image.new("RGB", (20, 20), (80 * k, 40, 200 - 60 * k)).save(folder / place)
    (folder / "broken.png").write_bytes(b"no picture")
    lines = [{"image": name, "captions": [f"picture {name}", "a square"]} for name in ("a.png", "b.png")]
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def embed(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distilvl", "embed", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin)


def test_dataset_as_arrays_that_features_imports(photos: Path, teacher: str, tmp_path: Path) -> None:
    out = tmp_path / "arrays"
    done = embed(teacher, "--data", photos, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert {"dim": 12, "images": 2, "texts": 4}.items() <= json.loads(done.stdout).items()
    ids = json.loads((out / "ids.json").read_text(encoding="utf-8"))
    assert ids["image"] == ["a.png", "b.png"]
    assert ids["text_image"] == ["a.png", "a.png", "b.png", "b.png"]
    images, texts = np.load(out / "image_features.npy"), np.load(out / "text_features.npy")
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    encoder = load_encoder(teacher)
    np.testing.assert_allclose(texts, encoder.encode_texts(load_dataset(str(photos)).captions), atol=1e-6)
    command = ["features", "--teacher", out, "--data", photos, "--out", tmp_path / "store"]
    subprocess.run([sys.executable, "-m", "distilvl", *map(str, command)], check=True, capture_output=True)


def test_files_folders_and_texts(photos: Path, teacher: str, tmp_path: Path) -> None:
    done = embed(teacher, photos / "b.png", photos / "more", "--text", "one", "--texts", "-", "--out", tmp_path / "e",
                 stdin="two\n\none\n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 images and 3 texts" in done.stdout
    ids = json.loads((tmp_path / "e" / "ids.json").read_text(encoding="utf-8"))
    assert ids["image"] == [(photos / "b.png").as_posix(), (photos / "more" / "c.png").as_posix()]
    texts = np.load(tmp_path / "e" / "text_features.npy")
    assert ids["text"] == ["one", "two", "one"]
    np.testing.assert_array_equal(texts[0], texts[2])


def test_lines_of_json(photos: Path, teacher: str) -> None:
    done = embed(teacher, photos / "a.png", "--text", "a red square")
    assert done.returncode == 0, done.stderr
    image, text = map(json.loads, done.stdout.splitlines())
    assert (image["image"], text["text"]) == ((photos / "a.png").as_posix(), "a red square")
    assert len(text["embedding"]) == 12


def test_a_broken_picture_stops_or_is_left_out_and_named(photos: Path, teacher: str, tmp_path: Path) -> None:
    done = embed(teacher, photos, "--out", tmp_path / "e")
    assert done.returncode == 2
    assert "broken.png" in done.stderr
    done = embed(teacher, photos, "--out", tmp_path / "e", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "3 images" in done.stdout
    assert "broken.png" in done.stdout
    assert "broken.png" in (tmp_path / "e" / "left-out.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "nothing to encode"),
        (["nowhere.png"], "no file or folder nowhere.png"),
        (["--data", "scenes", "--text", "x"], "--data does not go with"),
        (["--text", "x", "--dim", "3"], "not trained to be used with 3 dimensions"),
    ],
)
def test_what_cannot_be_encoded(teacher: str, words: list[str], what: str) -> None:
    with pytest.raises(DistilvlError, match=what):
        app(["embed", teacher, *words], standalone_mode=False)


def test_a_folder_with_other_things_is_left_alone(photos: Path, teacher: str) -> None:
    with pytest.raises(DistilvlError, match="holds other things"):
        app(["embed", teacher, "--text", "x", "--out", str(photos)], standalone_mode=False)


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "distilvl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("distilvl 0.")
