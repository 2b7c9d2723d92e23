from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer

from distilvl.export.dtypes import cosine_error, is_convolutional, layer_errors, to_half, to_int8
from distilvl.export.graphs import export_graphs, layers
from distilvl.students import DualEncoder


@pytest.fixture(scope="module")
def graphs(build: Callable[..., SentenceTransformer]) -> dict[str, onnx.ModelProto]:
    return export_graphs(DualEncoder(build()))


def inputs(rows: int = 6) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 60, (rows, 9))
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    pixels = rng.integers(0, 256, (rows, 3, 32, 32), dtype=np.uint8)
    return {"image": {"pixels": pixels}, "text": {"input_ids": ids, "attention_mask": mask}}


def run(graph: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    from onnxruntime import InferenceSession

    return np.asarray(InferenceSession(graph.SerializeToString()).run(None, feed)[0])


def names(graph: onnx.ModelProto) -> list[str]:
    return [node.name for node in layers(graph)]


def test_layers_are_named_as_the_modules_are(graphs: dict[str, onnx.ModelProto]) -> None:
    image, text = (names(graphs[modality]) for modality in ("image", "text"))
    assert image[0] == "image.tower.embeddings.patch_embeddings.projection"
    assert image[-1] == "image.head"
    assert {"text.tower.embeddings.word_embeddings", "text.head"} < set(text)
    assert len(set(image + text)) == len(image + text) == 1 + 2 * 6 + 1 + 3 + 2 * 6 + 1
    assert not any(is_convolutional(graph) for graph in graphs.values())


@pytest.mark.parametrize("modality", ["image", "text"])
def test_int8_graphs_are_valid_near_and_small(graphs: dict[str, onnx.ModelProto], modality: str) -> None:
    graph, feed = graphs[modality], inputs()[modality]
    small = to_int8(graph, names(graph))
    onnx.checker.check_model(small)
    assert 0 < cosine_error(run(graph, feed), run(small, feed)) < 0.01
    kept = [tensor for tensor in small.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert not any(tensor.name in {node.input[1] for node in layers(graph)} for tensor in kept)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_fp16_graphs_are_valid_and_near(graphs: dict[str, onnx.ModelProto], modality: str) -> None:
    graph, feed = graphs[modality], inputs()[modality]
    half = to_half(graph, names(graph))
    onnx.checker.check_model(half)
    assert cosine_error(run(graph, feed), run(half, feed)) < 1e-4
    weights = [tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) > 1 and max(tensor.dims) > 30]
    assert onnx.TensorProto.FLOAT16 in weights
    assert onnx.TensorProto.FLOAT not in weights


def test_nothing_lowered_is_nothing_changed(graphs: dict[str, onnx.ModelProto]) -> None:
    feed = inputs()["image"]
    np.testing.assert_array_equal(run(to_int8(graphs["image"], []), feed), run(graphs["image"], feed))


def test_layers_are_ranked_by_what_they_do_alone(graphs: dict[str, onnx.ModelProto]) -> None:
    bad = "text.tower.encoder.layer.1.output.dense"

    def lower(graph: onnx.ModelProto, chosen: list[str]) -> onnx.ModelProto:
        """Noise on the weights of the chosen layers, most of it on one of them."""
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        for node in layers(copy):
            tensor = next(one for one in copy.graph.initializer if one.name in node.input and len(one.dims) > 1)
            weights = numpy_helper.to_array(tensor)
            noise = np.random.default_rng(0).normal(size=weights.shape) * weights.std()
            share = 0.0 if node.name not in chosen else 1.0 if node.name == bad else 0.01
            tensor.CopyFrom(numpy_helper.from_array((weights + share * noise).astype(np.float32), tensor.name))
        return copy

    errors = layer_errors(graphs["text"], lower, inputs()["text"])
    assert next(iter(errors)) == bad
    assert set(errors) == set(names(graphs["text"]))
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
