"""Encoders: what can be named, L2-normalised embeddings, and which models are the same."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from distilvl import build_student
from distilvl.errors import DistilvlError
from distilvl.models import Encoder, is_same_model, load_encoder
from distilvl.models.encoder import ModelInfo
from distilvl.students.storage import save_student

PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]


def test_rows_become_unit_float32(encoder: Encoder) -> None:
    for rows in (encoder.encode_images(PICTURES), encoder.encode_texts(["red", "blue"])):
        assert rows.dtype == np.float32
        assert rows.shape == (2, 8)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((2, 8)), np.full((2, 8), np.nan), np.ones((1, 8)), np.ones((2, 7))])
def test_unusable_rows_are_refused(rows: np.ndarray) -> None:
    model = SimpleNamespace(name="m", revision="1", dim=8, encode_images=lambda _: rows, encode_texts=lambda _: rows)
    with pytest.raises(DistilvlError, match="m"):
        Encoder(model).encode_images(PICTURES)


def test_a_run_its_student_and_a_copy_of_it_are_one_model(tmp_path: Path, student_yaml: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("recipe: demo\n")
    with pytest.raises(DistilvlError, match="no finished student"):
        load_encoder(run)
    save_student(build_student(str(student_yaml), 12, captions=["a red circle", "a blue square"]), run / "student")
    shutil.copytree(run / "student", tmp_path / "copy")
    encoders = [load_encoder(place) for place in (run, run / "student", tmp_path / "copy")]
    rows = [one.encode_images(PICTURES) for one in encoders]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert all(is_same_model(encoders[0].info, one.info) for one in encoders)
    assert encoders[0].info.spec == str(run)
    assert encoders[0].dim == 12
    slow = load_encoder(f"{run}?dtype=bfloat16&device=cpu")
    assert not is_same_model(encoders[0].info, slow.info)
    assert load_encoder(slow.spec).revision == slow.revision


def test_teachers_are_encoders_too() -> None:
    assert load_encoder("demo").encode_texts(["a red circle"]).shape == (1, 128)
    with pytest.raises(DistilvlError, match="nothing-of-the-kind"):
        load_encoder("./nothing-of-the-kind/x/y")


def test_a_store_of_features_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"teacher": "demo"}')
    with pytest.raises(DistilvlError, match="feature store"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("a", "1", 8), ("a", "1", 8), True),
        (("a", "1", 8), ("b", "1", 8), False),
        (("a", "1", 8), ("a", "2", 8), False),
        (("a", "1", 8), ("a", "1", 9), False),
        (("a", "0123456789abcdef", 8), ("b", "0123456789abcdef", 8), True),
        (("a", "0123456789abcdef-int8", 8), ("b", "0123456789abcdef-int8", 8), True),
        (("a", "0123456789abcdef", 8), ("a", "0123456789abcdef-int8", 8), False),
        (("a", "as-served", 8), ("b", "as-served", 8), False),
    ],
)
def test_the_same_model(one: tuple[str, str, int], other: tuple[str, str, int], same: bool) -> None:
    assert is_same_model(ModelInfo("x", *one), ModelInfo("y", *other)) is same


def test_opening_an_index_loads_no_torch() -> None:
    code = "import sys, distilvl.models.loading, distilvl.search.index; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
