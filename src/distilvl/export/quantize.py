"""Which layers suffer most from a lower precision: each is lowered alone and the features are compared."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from distilvl.export.graphs import layers
from distilvl.io.progress import progress

_CALIBRATION_BATCH = 8
_EMBEDDINGS = "Gather"


def is_convolutional(graph: onnx.ModelProto) -> bool:
    """Whether most weights of the tower belong to convolutions."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    weights = [(node.op_type, max(sizes.get(name, 0) for name in node.input)) for node in layers(graph)]
    return 2 * sum(size for kind, size in weights if kind == "Conv") > sum(size for _, size in weights)


def to_int8(
    graph: onnx.ModelProto, names: Collection[str], calibration: npt.NDArray[np.uint8] | None = None
) -> onnx.ModelProto:
    """A copy of `graph` with the layers in `names` in int8.

    Args:
        graph: fp32, as `export_graphs` gives it.
        names: which of its `layers`.
        calibration: (n, 3, H, W) uint8 pixels of training images; needed by convolutional towers, ignored by others.
    """
    chosen = [node for node in layers(graph) if node.name in set(names)]
    if is_convolutional(graph) and calibration is not None:
        return _static(graph, [node.name for node in chosen], calibration)
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    _store_in_8_bits(copy, {node.name for node in chosen if node.op_type in ("Conv", _EMBEDDINGS)})
    return _dynamic(copy, [node.name for node in chosen if node.op_type in ("MatMul", "Gemm")])


def _dynamic(graph: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    if not names:  # the quantiser takes an empty list for all nodes
        return graph
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "int8.onnx")
        quantize_dynamic(
            graph,
            path,
            op_types_to_quantize=["MatMul"],
            # It makes a MatMul of each Gemm first, under another name.
            nodes_to_quantize=[*names, *(f"{name}_MatMul" for name in names)],
            **_settings(QuantType),
        )
        return onnx.load(path)


def _static(graph: onnx.ModelProto, names: list[str], calibration: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "int8.onnx")
        quantize_static(
            graph,
            path,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_quantize=names,
            activation_type=QuantType.QUInt8,
            **_settings(QuantType),
        )
        return onnx.load(path)


def _settings(kinds: Any) -> dict[str, Any]:
    # Weights in 7 bits: products of 8-bit weights and activations overflow the 16-bit sums of processors without
    # VNNI, which would give such machines other features than those scored here.
    return {"per_channel": True, "reduce_range": True, "weight_type": kinds.QInt8}


class _Batches:
    """The calibration images as the quantiser reads them; it asks for the next batch until there is none."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._left = iter(range(0, len(pixels), _CALIBRATION_BATCH))
        self._pixels = pixels

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """Inputs of the image graph."""
        start = next(self._left, None)
        return None if start is None else {"pixels": self._pixels[start : start + _CALIBRATION_BATCH]}


def _store_in_8_bits(graph: onnx.ModelProto, names: set[str]) -> None:
    """Embeddings and patch projections: weights in 8 bits, one scale a row, computed with in fp32; in place."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes = list(graph.graph.node)
    for node in [node for node in nodes if node.name in names]:
        weights = node.input[0 if node.op_type == _EMBEDDINGS else 1]
        eighth = f"{weights}.int8"
        if eighth not in stored:
            for tensor in _in_8_bits(numpy_helper.to_array(stored[weights]), weights):
                graph.graph.initializer.append(tensor)
                stored[tensor.name] = tensor
        place = nodes.index(node)
        nodes[place : place + 1] = _lookup(node, weights) if node.op_type == _EMBEDDINGS else _restored(node, weights)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    unused = [tensor for tensor in graph.graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.graph.initializer.remove(tensor)


def _in_8_bits(weights: npt.NDArray[np.float32], name: str) -> list[onnx.TensorProto]:
    """Integers of `weights`' shape, and the scale of each row, (rows, 1, ...)."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    scale = np.maximum(largest / 127, np.finfo(np.float32).tiny)
    integers = np.rint(weights / scale).astype(np.int8)
    return [
        numpy_helper.from_array(integers, f"{name}.int8"),
        numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"),
    ]


def _lookup(node: onnx.NodeProto, weights: str) -> list[onnx.NodeProto]:
    """Rows of integers times their scales: only what is looked up becomes float."""
    indices, name = node.input[1], node.name
    return [
        helper.make_node("Gather", [f"{weights}.int8", indices], [f"{name}.row"], name=name),
        helper.make_node("Gather", [f"{weights}.scale", indices], [f"{name}.factor"], name=f"{name}.scale"),
        helper.make_node("Cast", [f"{name}.row"], [f"{name}.float"], name=f"{name}.cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.float", f"{name}.factor"], [node.output[0]], name=f"{name}.times"),
    ]


def _restored(node: onnx.NodeProto, weights: str) -> list[onnx.NodeProto]:
    """The convolution behind what makes its weights float again, which runtimes do once, on loading."""
    cast = helper.make_node("Cast", [f"{weights}.int8"], [f"{node.name}.float"], to=TensorProto.FLOAT)
    shape = helper.make_node("Mul", [cast.output[0], f"{weights}.scale"], [f"{node.name}.weights"])
    node.input[1] = shape.output[0]
    return [cast, shape, node]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice, which it gives through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


Inputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
Lower: TypeAlias = Callable[[onnx.ModelProto, Collection[str]], onnx.ModelProto]


def layer_errors(graph: onnx.ModelProto, lower: Lower, inputs: Inputs) -> dict[str, float]:
    """1 - cosine between the fp32 features and those with one layer in lower precision, mean over the items.

    Args:
        graph: fp32, as `export_graphs` gives it.
        lower: of a graph and names of layers: the same graph with these layers, and no others, in lower precision.
        inputs: of the graph, a few dozen items.

    Returns:
        The error of each layer by its name, largest first.
    """
    expected = _features(graph, inputs)
    errors = {}
    nodes = layers(graph)
    with progress("trying layers alone", len(nodes)) as ticker:
        for node in nodes:
            errors[node.name] = cosine_error(expected, _features(lower(graph, [node.name]), inputs))
            ticker.advance()
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def cosine_error(expected: npt.NDArray[np.float32], given: npt.NDArray[np.float32]) -> float:
    """1 - cosine of rows, mean; 0 to 2."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(given, axis=1)
    return float(np.mean(1 - (expected * given).sum(axis=1) / lengths))


def _features(graph: onnx.ModelProto, inputs: Inputs) -> npt.NDArray[np.float32]:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(graph.SerializeToString(), options)
    features: npt.NDArray[np.float32] = session.run(None, dict(inputs))[0]
    return features
