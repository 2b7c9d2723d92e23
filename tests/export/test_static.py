"""Exported students with a static text tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from distilvl.data import PairDataset
from distilvl.export import Settings, export_student
from distilvl.export.graphs import export_graphs, layers
from distilvl.runtime import Runtime
from distilvl.students import DualEncoder, build_student, load_student, save_student

TEXTS = ["a red circle", "", "???", "a small green star above a blue square", "Naïve café — 東京", "star " * 400]
ATOL = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.03}


@pytest.fixture(scope="module")
def static(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student's folder, and its export."""
    folder = tmp_path_factory.mktemp("static")
    student = build_student("demo", 16, scenes.captions, overrides=["text.kind=static", "text.rank=8", "text.pairs=9"])
    save_student(student, folder / "student")
    settings = Settings(precisions=tuple(ATOL), max_drop=600)
    return folder / "student", export_student(folder / "student", folder / "exported", scenes, settings).folder


def test_layers_are_named_as_the_modules_are(static: tuple[Path, Path]) -> None:
    graph = export_graphs(DualEncoder(load_student(static[0], device="cpu")))["text"]
    assert [node.name for node in layers(graph)] == ["text.tower.embedding", "text.head"]


@pytest.mark.parametrize("dtype", list(ATOL))
def test_embeddings_are_the_students(static: tuple[Path, Path], dtype: str) -> None:
    expected = load_student(static[0], device="cpu").encode(TEXTS)
    runtime = Runtime.load(static[1], precision=dtype)
    assert runtime.manifest.max_length == 256
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), expected, atol=ATOL[dtype])
    for text, row in zip(TEXTS, expected, strict=True):
        np.testing.assert_allclose(runtime.encode_texts([text])[0], row, atol=ATOL[dtype])


def test_int8_keeps_no_float_of_the_table(static: tuple[Path, Path]) -> None:
    graph = onnx.load(static[1] / "text.int8.onnx")
    floats = [one for one in graph.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 1]
    assert all(np.prod(one.dims) <= max(one.dims) for one in floats)  # scales alone
