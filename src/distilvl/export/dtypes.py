"""fp32, fp16 and int8: which layers are lowered, how, and which of them suffer most."""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from distilvl.errors import DistilvlError
from distilvl.export.graphs import Graphs, layers, quiet, session
from distilvl.io.inputs import list_of_texts
from distilvl.io.progress import progress

DTYPES = ("fp32", "fp16", "int8")

Inputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
# Of a graph and names of layers: the same graph with these layers, and no others, in a lower dtype.
Lower: TypeAlias = Callable[[ModelProto, Collection[str]], ModelProto]
# Sums of squares leave the range of fp16 (65,504) where activations are large; they cost next to nothing in fp32.
_IN_FP32 = ("LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Pow", "LpNormalization")
_EMBEDDINGS = "Gather"


def lowered(graph: ModelProto, names: Collection[str], dtype: str) -> ModelProto:
    """The graph with these of its layers in the dtype."""
    if dtype == "int8":
        return to_int8(graph, names)
    return to_half(graph, names) if dtype == "fp16" else graph


def check_dtypes(dtypes: Sequence[str]) -> tuple[str, ...]:
    """The dtypes in the order of `DTYPES`, each once; `DistilvlError` for none, or an unknown one."""
    dtypes = list_of_texts(dtypes)
    unknown = [name for name in dtypes if name not in DTYPES]
    if unknown or not dtypes:
        what = f"dtype {unknown[0]!r} is unknown" if unknown else "no dtype was named"
        raise DistilvlError(f"{what}.", f"Choose from {', '.join(DTYPES)}.")
    return tuple(name for name in DTYPES if name in dtypes)


def split_layers(graphs: Graphs, keep: Sequence[str]) -> tuple[list[str], list[str]]:
    """The layers to lower and those to keep in fp32: named themselves, or by modules (`text.tower.embeddings`)."""
    names = [node.name for graph in graphs.values() for node in layers(graph)]
    kept: set[str] = set()
    for one in keep:
        found = {name for name in names if name == one or name.startswith(f"{one}.")}
        if not found:
            raise DistilvlError(f"no layer is named {one!r}.", f"The layers are: {', '.join(names)}.")
        kept |= found
    return [name for name in names if name not in kept], [name for name in names if name in kept]


def kept_by(dtype: str, graphs: Graphs) -> list[str]:
    """The layers that stay in fp32 in this dtype unnamed: the first eighth of a convolutional tower in int8.

    They hold few weights, and what they round is carried through all others: of an EfficientNet-Lite0, 49 layers, the
    first six, half a percent of the file, make half of the error of all.
    """
    names = [node.name for node in layers(graphs["image"])]
    return names[: len(names) // 8] if dtype == "int8" and is_convolutional(graphs["image"]) else []


def to_half(graph: ModelProto, names: Collection[str]) -> ModelProto:
    """A copy of an fp32 `graph` that computes in fp16, but for those of its `layers` that are not in `names`."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    keep = [node.name for node in layers(graph) if node.name not in set(names)]
    keep += _around_layers(graph)
    operations = [*DEFAULT_OP_BLOCK_LIST, *_IN_FP32]
    half = convert_float_to_float16(deepcopy(graph), keep_io_types=True, op_block_list=operations, node_block_list=keep)
    # The converter casts a tensor once for each node that needs it in fp32, each time under the same name.
    nodes = {tuple(node.output): node for node in reversed(half.graph.node)}
    _replace(half.graph.node, list(reversed(nodes.values())))
    # Between two nodes that compute in fp32, it rounds to 16 bits and back.
    producers = {name: node for node in half.graph.node for name in node.output}
    for node in half.graph.node:
        before = producers.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and before.name.endswith("_cast_to_fp16_node"):
            node.input[0] = before.input[0]
    sorted_ = ONNXModel(half)
    sorted_.topological_sort()
    return sorted_.model  # type: ignore[no-any-return]


def _around_layers(graph: ModelProto) -> list[str]:
    """What stands before the first layer (bytes up to 255 would lose their last digits in fp16), and after the last.

    The latter L2-normalises the embeddings: 16 bits hold them to three digits only.
    """
    nodes, names, known = graph.graph.node, [], {tensor.name for tensor in graph.graph.input}
    for node in nodes:
        if node.op_type in ("Cast", "Sub", "Mul", "Div") and any(name in known for name in node.input):
            names.append(node.name)
            known.update(node.output)
    last = max(k for k, node in enumerate(nodes) if node.name == layers(graph)[-1].name)
    return [*names, *(node.name for node in nodes[last + 1 :])]


def is_convolutional(graph: ModelProto) -> bool:
    """Whether most weights of the tower belong to convolutions."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    weights = [(node.op_type, max(sizes.get(name, 0) for name in node.input)) for node in layers(graph)]
    return 2 * sum(size for kind, size in weights if kind == "Conv") > sum(size for _, size in weights)


def to_int8(graph: ModelProto, names: Collection[str]) -> ModelProto:
    """A copy of an fp32 `graph` with those of its `layers` that are in `names` in int8.

    Products compute in int8; of convolutions and embeddings the weights are stored in it, and compute in fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    chosen = [node for node in layers(graph) if node.name in set(names)]
    # Weights in 7 bits: products of 8-bit weights and activations overflow the 16-bit sums of processors without
    # VNNI, which would give such machines other features than those scored here.
    settings: dict[str, Any] = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder, quiet(None):  # the quantiser advises through the root logger
        path = Path(folder, "int8.onnx")
        small = deepcopy(graph)
        _store_in_8_bits(small, {node.name for node in chosen if node.op_type in ("Conv", _EMBEDDINGS)})
        products = [node.name for node in chosen if node.op_type in ("MatMul", "Gemm")]
        if not products:  # the quantiser takes an empty list for all nodes
            return small
        # It makes a MatMul of each Gemm first, under another name.
        products += [f"{name}_MatMul" for name in products]
        quantize_dynamic(small, path, op_types_to_quantize=["MatMul"], nodes_to_quantize=products, **settings)
        return onnx.load(path)


def _store_in_8_bits(graph: ModelProto, names: set[str]) -> None:
    """Embeddings and convolutions: weights in 8 bits, one scale a row, computed with in fp32; in place."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        weights = node.input[0 if node.op_type == _EMBEDDINGS else 1]
        if f"{weights}.int8" not in stored:
            for tensor in _in_8_bits(numpy_helper.to_array(stored[weights]), weights):
                graph.graph.initializer.append(tensor)
                stored[tensor.name] = tensor
        nodes += _lookup(node, weights) if node.op_type == _EMBEDDINGS else _restored(node, weights)
    _replace(graph.graph.node, nodes)
    used = {name for node in nodes for name in node.input}
    _replace(graph.graph.initializer, [tensor for tensor in graph.graph.initializer if tensor.name in used])


def _replace(field: Any, items: list[Any]) -> None:
    """Other items for a repeated field of a graph."""
    del field[:]
    field.extend(items)


def _in_8_bits(weights: npt.NDArray[np.float32], name: str) -> list[onnx.TensorProto]:
    """Integers of `weights`' shape, and the scale of each row, (rows, 1, ...)."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True)
    scale = np.maximum(largest / 127, np.finfo(np.float32).tiny)
    integers = np.rint(weights / scale).astype(np.int8)
    parts = {"int8": integers, "scale": scale.astype(np.float32)}
    return [numpy_helper.from_array(part, f"{name}.{end}") for end, part in parts.items()]


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


def layer_errors(graph: ModelProto, lower: Lower, inputs: Inputs) -> dict[str, float]:
    """Of each layer: 1 - cosine of the features with it alone in a lower dtype, mean over the items; largest first."""
    expected, errors, nodes = session(graph).run(None, dict(inputs))[0], {}, layers(graph)
    with progress("trying layers alone", len(nodes)) as ticker:
        for node in nodes:
            given = session(lower(graph, [node.name])).run(None, dict(inputs))[0]
            errors[node.name] = cosine_error(expected, given)
            ticker.advance()
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def cosine_error(expected: npt.NDArray[np.float32], given: npt.NDArray[np.float32]) -> float:
    """1 - cosine of rows, mean; 0 to 2."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(given, axis=1)
    return float(np.mean(1 - (expected * given).sum(axis=1) / lengths))
