"""fp32, fp16 and int8: which layers are lowered, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from distilvl.errors import DistilvlError
from distilvl.export.graphs import layers
from distilvl.export.quantize import to_int8
from distilvl.io.inputs import list_of_texts

# Sums of squares leave the range of fp16 (65,504) where activations are large; they cost next to nothing in fp32.
_IN_FP32 = ("LayerNormalization", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Pow", "LpNormalization")


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
    """What brings rows to unit length: 16 bits hold it to three digits only."""
    last = max(k for k, node in enumerate(graph.graph.node) if node.name == layers(graph)[-1].name)
    return [node.name for node in graph.graph.node[last + 1 :]]


PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Lowering:
    """How graphs get one precision; call it with a graph and the names of the layers that are lowered.

    Attributes:
        precision: one of `PRECISIONS`.
        calibration: (n, 3, H, W) uint8 pixels of training images; for int8 convolutional towers.
    """

    precision: str
    calibration: npt.NDArray[np.uint8] | None

    def __call__(self, graph: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
        """The graph with these layers, and no others, in the precision."""
        if self.precision == "fp32":
            return graph
        return to_half(graph, names) if self.precision == "fp16" else to_int8(graph, names, self.calibration)


def check_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """The precisions in the order of `PRECISIONS`, each once.

    Raises:
        NotAListError: one name instead of a list.
        DistilvlError: none, or an unknown one.
    """
    precisions = list_of_texts(precisions)
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        what = f"precision {unknown[0]!r} is unknown" if unknown else "no precision was asked for"
        raise DistilvlError(f"{what}.", f"Choose from {', '.join(PRECISIONS)}.")
    return tuple(name for name in PRECISIONS if name in precisions)


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
