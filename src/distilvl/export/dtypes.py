"""fp32, fp16 and int8: which layers are lowered, how, and which of them suffer most."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from distilvl.errors import DistilvlError
from distilvl.export.graphs import layers, quiet, session
from distilvl.io.inputs import list_of_texts
from distilvl.io.progress import progress

DTYPES = ("fp32", "fp16", "int8")

Inputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
Lower: TypeAlias = Callable[[onnx.ModelProto, Collection[str]], onnx.ModelProto]
"""Of a graph and names of layers: the same graph with these layers, and no others, in a lower dtype."""

# Sums of squares leave the range of fp16 (65,504) where activations are large; they cost next to nothing in fp32.
_IN_FP32 = ("LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Pow", "LpNormalization")
_CALIBRATION_BATCH = 8
_EMBEDDINGS = "Gather"


@dataclass(frozen=True)
class Lowering:
    """How graphs get one dtype; call it with a graph and the names of the layers that are lowered.

    Attributes:
        dtype: one of `DTYPES`.
        calibration: (n, 3, H, W) uint8 pixels of training images; for int8 convolutional towers.
    """

    dtype: str
    calibration: npt.NDArray[np.uint8] | None

    def __call__(self, graph: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
        """The graph with these layers, and no others, in the dtype."""
        if self.dtype == "fp32":
            return graph
        return to_half(graph, names) if self.dtype == "fp16" else to_int8(graph, names, self.calibration)


def check_dtypes(dtypes: Sequence[str]) -> tuple[str, ...]:
    """The dtypes in the order of `DTYPES`, each once.

    Raises:
        NotAListError: one name instead of a list.
        DistilvlError: none, or an unknown one.
    """
    dtypes = list_of_texts(dtypes)
    unknown = [name for name in dtypes if name not in DTYPES]
    if unknown or not dtypes:
        what = f"dtype {unknown[0]!r} is unknown" if unknown else "no dtype was named"
        raise DistilvlError(f"{what}.", f"Choose from {', '.join(DTYPES)}.")
    return tuple(name for name in DTYPES if name in dtypes)


def split_layers(graphs: Mapping[str, onnx.ModelProto], keep: Sequence[str]) -> tuple[list[str], list[str]]:
    """The layers to lower and those to keep in fp32.

    Args:
        graphs: both towers.
        keep: names of layers, or of modules that contain some: `text.tower.embeddings`.

    Raises:
        DistilvlError: a name that no layer has.
    """
    names = [node.name for graph in graphs.values() for node in layers(graph)]
    kept = [name for name in names if any(name == one or name.startswith(f"{one}.") for one in keep)]
    for one in keep:
        if not any(name == one or name.startswith(f"{one}.") for name in names):
            raise DistilvlError(f"no layer is named {one!r}.", f"The layers are: {', '.join(names)}.")
    return [name for name in names if name not in kept], kept


def to_half(graph: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy of `graph` that computes in fp16; inputs and outputs stay as they are.

    Args:
        graph: fp32, as `export_graphs` gives it.
        names: which of its `layers`; the others stay in fp32.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    keep = [node.name for node in layers(graph) if node.name not in set(names)]
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    half = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_IN_FP32],
        node_block_list=[*keep, *_before_layers(graph), *_after_layers(graph)],
    )
    _drop_twins(half)
    _skip_roundings(half)
    sorted_ = ONNXModel(half)
    sorted_.topological_sort()
    return sorted_.model  # type: ignore[no-any-return]


def _drop_twins(graph: onnx.ModelProto) -> None:
    """The converter casts a tensor once for each node that needs it in fp32, each time under the same name."""
    nodes = {tuple(node.output): node for node in reversed(graph.graph.node)}
    kept = list(reversed(nodes.values()))
    del graph.graph.node[:]
    graph.graph.node.extend(kept)


def _skip_roundings(graph: onnx.ModelProto) -> None:
    """Between two nodes that compute in fp32, the converter rounds to 16 bits and back."""
    producers = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        before = producers.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and before.name.endswith("_cast_to_fp16_node"):
            node.input[0] = before.input[0]


def _before_layers(graph: onnx.ModelProto) -> list[str]:
    """What stands between the pixels and the first layer: bytes up to 255 would lose their last digits in fp16."""
    names, known = [], {tensor.name for tensor in graph.graph.input}
    for node in graph.graph.node:
        if node.op_type in ("Cast", "Sub", "Mul", "Div") and any(name in known for name in node.input):
            names.append(node.name)
            known.update(node.output)
    return names


def _after_layers(graph: onnx.ModelProto) -> list[str]:
    """What L2-normalises the embeddings: 16 bits hold them to three digits only."""
    last = max(k for k, node in enumerate(graph.graph.node) if node.name == layers(graph)[-1].name)
    return [node.name for node in graph.graph.node[last + 1 :]]


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

    with tempfile.TemporaryDirectory() as folder, quiet(None):  # it advises through the root logger
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

    with tempfile.TemporaryDirectory() as folder, quiet(None):
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


def layer_errors(graph: onnx.ModelProto, lower: Lower, inputs: Inputs) -> dict[str, float]:
    """1 - cosine between the fp32 features and those with one layer in a lower dtype, mean over the items.

    Args:
        graph: fp32, as `export_graphs` gives it.
        lower: how a layer gets the dtype.
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
    features: npt.NDArray[np.float32] = session(graph).run(None, dict(inputs))[0]
    return features
