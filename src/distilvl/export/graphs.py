"""From a student's towers to ONNX graphs: uint8 pixels or token ids in, features out."""

import ast
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.heads import head_path
from distilvl.students.storage import MODALITIES, max_length, route
from distilvl.students.timm_towers import fused
from distilvl.students.towers import loading

Graphs = dict[str, onnx.ModelProto]  # by `image` and `text`
OPSET = 20
WEIGHTED = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}  # operations with weights, and which input these are
_TOLERANCE = 1e-4
_LONG = 512  # tokens of the longest text on which graph and tower are compared
_MODULE = re.compile(r"sub_modules\.(?:text|image)\.(\d+)(?:\.(.+))?$")


class _Tower(nn.Module):
    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder = encoder


class _ImageTower(_Tower):
    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_images(pixels)


class _TextTower(_Tower):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder.encode_texts(input_ids, attention_mask)


def export_graphs(encoder: DualEncoder) -> Graphs:
    """The fp32 graphs of both towers, by `image` and `text`; layers are named as the student's modules are.

        image: `pixels` (batch, 3, H, W) uint8 -> `features` (batch, D) float32; scale and normalisation included
        text:  `input_ids`, `attention_mask` (batch, length) int64 -> `features` (batch, D) float32

    `DistilvlError` for a tower that PyTorch cannot export, or whose graph gives other features than the student.
    """
    encoder.eval()
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    images: dict[str, Any] = {"pixels": {0: batch}}
    texts = {name: {0: batch, 1: length} for name in ("input_ids", "attention_mask")}
    image_tower = route(encoder.student, "image")[0].model
    with _plain_attention(encoder), fused(image_tower), torch.no_grad():
        graphs = {
            "image": _export("image", _ImageTower(encoder), _pixels(encoder, 2), images),
            "text": _export("text", _TextTower(encoder), _tokens(encoder, 3, 7), texts),
        }
    for modality, graph in graphs.items():
        _name_layers(graph, modality, head=head_path(route(encoder.student, modality)))
    _require_same(encoder, graphs)
    return graphs


def layers(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply by, convolve with or look up stored weights, in order."""
    stored = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) > 1}
    weighted = (node for node in graph.graph.node if node.op_type in WEIGHTED)
    return [node for node in weighted if node.input[WEIGHTED[node.op_type]] in stored]


def session(graph: onnx.ModelProto) -> Any:
    """An onnxruntime session of a graph in memory, which says nothing but errors."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3
    return InferenceSession(graph.SerializeToString(), options)


def _export(name: str, tower: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, Any]) -> onnx.ModelProto:
    how: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "external_data": False, "verbose": False}
    how |= {"input_names": list(inputs), "output_names": ["features"], "dynamic_shapes": shapes}
    # What `quiet` leaves out: notes on packages that are not installed and names that the exporter chose.
    with quiet("torch.onnx"), loading(f"PyTorch cannot export the {name} tower to ONNX", "Use another tower."):
        program: Any = torch.onnx.export(tower.eval(), kwargs=inputs, **how)
    graph: onnx.ModelProto = program.model_proto
    # Shapes of intermediate results, which the quantiser would take for right after it transposed a weight.
    del graph.graph.value_info[:]
    return graph


def _pixels(encoder: DualEncoder, rows: int) -> dict[str, Tensor]:
    generator, shape = torch.Generator().manual_seed(rows), (rows, 3, *encoder.image_size)
    return {"pixels": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)}


def _tokens(encoder: DualEncoder, rows: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    tower = route(encoder.student, "text")[0]
    entries = tower.num_embeddings if encoder.text_is_static else len(tower.tokenizer)
    ids = torch.randint(0, entries, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, max(1, length - row) :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _require_same(encoder: DualEncoder, graphs: Graphs) -> None:
    """Compare graphs and towers on batches and lengths other than those of the export."""
    sessions = {name: session(graph) for name, graph in graphs.items()}
    longest = min(max_length(encoder.student), _LONG)
    for rows, length in ((1, 1), (2, min(9, longest)), (5, longest)):
        for name, inputs in (("image", _pixels(encoder, rows)), ("text", _tokens(encoder, rows, length))):
            with torch.no_grad():
                expected = (encoder.encode_images if name == "image" else encoder.encode_texts)(*inputs.values())
            given = sessions[name].run(None, {key: value.numpy() for key, value in inputs.items()})[0]
            if given.shape != expected.shape or np.abs(given - expected.numpy()).max() > _TOLERANCE:
                what = f"the exported {name} tower gives other features than the student ({rows} rows)."
                raise DistilvlError(what, "Use another tower, or report this with the student's config.json.")


def _name_layers(graph: onnx.ModelProto, modality: str, head: str) -> None:
    """`image.tower.encoder.layer.0.attention.q_proj`, `text.head`: what messages and `--keep` call the layers."""
    seen: Counter[str] = Counter()
    for node in layers(graph):
        name = f"{modality}.{_module(node, head)}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}.{seen[name]}"


def _module(node: onnx.NodeProto, head: str) -> str:
    """The module that a node comes from, as the exporter noted it: tower, pooling or head, and the path inside."""
    noted = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "[]")
    weight = node.input[WEIGHTED[node.op_type]].rpartition(".")[0]  # of what is used without its module's call
    scopes = [found for scope in [weight, *ast.literal_eval(noted)[:-1]] if (found := _MODULE.search(scope))]
    if not scopes:
        return node.name
    index, path = scopes[-1][1], scopes[-1][2] or ""
    if f"{index}.{path}.".startswith(f"{head}."):
        return "head"
    return ".".join(part for part in ("tower" if index == "0" else "pooling", path.removeprefix("model.")) if part)


@contextmanager
def _plain_attention(encoder: DualEncoder) -> Iterator[None]:
    """Attention as products and a softmax, which runtimes fuse themselves."""
    towers = [tower.model for modality in MODALITIES if hasattr(tower := route(encoder.student, modality)[0], "model")]
    before = [tower.config._attn_implementation for tower in towers]
    try:
        for tower in towers:
            tower.set_attn_implementation("eager")
        yield
    finally:
        for tower, name in zip(towers, before, strict=True):
            tower.set_attn_implementation(name)


@contextmanager
def quiet(logger: str | None) -> Iterator[None]:
    """Without warnings, and without what `logger` says below errors; none for the root logger."""
    chosen = logging.getLogger(logger)
    level = chosen.level
    chosen.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        chosen.setLevel(level)
