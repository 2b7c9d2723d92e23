"""fp32, fp16 and int8: which layers are lowered, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from distilvl.errors import DistilvlError
from distilvl.export.graphs import layers
from distilvl.export.half import to_half
from distilvl.export.quantize import to_int8
from distilvl.lists import list_of_texts

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
