"""An exported folder made by hand: two tiny graphs and a tokenizer, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from distilvl.io.hashes import file_hash

WORDS = {"[PAD]": 0, "[UNK]": 1, "dog": 2, "cat": 3, "red": 4}
WIDTH = 4


def image_graph() -> Any:
    """The mean colour, times a matrix."""
    weights = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "sides"], ["colour"], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["features"]),
    ]
    return _graph(
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, 4, 6])],
        {"weights": weights, "sides": np.array([2, 3], dtype=np.int64)},
    )


def text_graph() -> Any:
    """The sum of the word vectors that the mask lets through."""
    vectors = np.random.default_rng(1).normal(size=(len(WORDS), WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["words", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["features"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    constants = {"vectors": vectors, "last": np.array([2]), "middle": np.array([1])}
    return _graph(nodes, inputs, constants)


def _graph(nodes: list[Any], inputs: list[Any], constants: dict[str, Any]) -> Any:
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", WIDTH])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tower", inputs, [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A student of width 4 that sees 4 x 6 pixels and cuts texts at three words."""
    path = tmp_path / "exported"
    path.mkdir()
    onnx.save(image_graph(), path / "image.fp32.onnx")
    onnx.save(text_graph(), path / "text.fp32.onnx")
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    files = {file.name: {"sha256": file_hash(file), "size": file.stat().st_size} for file in sorted(path.iterdir())}
    steps = [{"step": "resize", "height": 4, "width": 6, "resample": "bilinear"}]
    fields = {
        "format": "distilvl-export",
        "version": 1,
        "name": "tiny",
        "revision": "abc",
        "width": WIDTH,
        "widths": [2],
        "normalized": False,
        "image": {"size": [4, 6], "steps": steps},
        "text": {"tokenizer": "tokenizer.json", "max_length": 3, "pad_id": 0},
        "precisions": {"fp32": {"image": "image.fp32.onnx", "text": "text.fp32.onnx", "kept": []}},
        "files": files,
        "scores": {},
    }
    (path / "manifest.json").write_text(json.dumps(fields), encoding="utf-8")
    return path


@pytest.fixture
def change(folder: Path) -> Callable[..., None]:
    """Set a field of the manifest by its path of keys."""

    def set_field(value: object, *keys: str) -> None:
        path = folder / "manifest.json"
        fields = json.loads(path.read_text(encoding="utf-8"))
        place = fields
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(json.dumps(fields), encoding="utf-8")

    return set_field
