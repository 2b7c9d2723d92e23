"""Which layers suffer most from a lower precision: each is lowered alone and the features are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from distilvl.export.graphs import layers
from distilvl.progress import progress

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
