"""Convolutional towers: int8, and a processor that crops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from distilvl.data import PairDataset
from distilvl.export import Export, Settings, export_student
from distilvl.runtime import Runtime
from distilvl.students import load_student, save_student

CONVNEXT = {
    "config": {"model_type": "convnext", "patch_size": 4, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1],
               "layer_scale_init_value": 1.0, "initializer_range": 0.2},
    "size": 32, "pooling": "mean",
}  # fmt: skip
RESNET = {
    "config": {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 48], "depths": [1, 1],
               "layer_type": "basic"},
    "size": 32, "pooling": "mean",
}  # fmt: skip


@pytest.fixture(scope="module")
def student(build: Callable[..., SentenceTransformer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("students") / "resnet"
    save_student(build(image=RESNET), path)
    return path


@pytest.fixture(scope="module")
def exported(student: Path, scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Export:
    out = tmp_path_factory.mktemp("exported") / "resnet"
    return export_student(student, out, scenes, Settings(max_drop=600))


def test_int8_convolutions_are_stored_in_8_bits_but_for_the_first_eighth(exported: Export) -> None:
    graph = onnx.load(exported.folder / "image.int8.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    stored = [node for node in convolutions if node.input[1] in producers]
    assert stored
    assert len(convolutions) - len(stored) == len(convolutions) // 8
    for node in stored:
        integers = producers[producers[node.input[1]].input[0]].input[0]
        assert kinds[integers] == onnx.TensorProto.INT8
    sizes = [(exported.folder / f"image.{dtype}.onnx").stat().st_size for dtype in ("fp32", "int8")]
    assert sizes[1] < 0.7 * sizes[0]  # half of so small a file is the graph


def test_features_are_near_the_students(exported: Export, student: Path) -> None:
    model = load_student(student, device="cpu")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(5)]
    expected = model.encode(images)
    for precision, error in (("fp32", 1e-6), ("int8", 1e-3)):
        given = Runtime.load(exported.folder, precision=precision).encode_images(images)
        assert (1 - (given * expected).sum(axis=1)).max() < error
