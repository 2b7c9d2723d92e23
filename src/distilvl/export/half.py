"""fp32 graphs to fp16 ones: half the size, weights and products in 16 bits."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from distilvl.export.graphs import layers

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
