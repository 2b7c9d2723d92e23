"""What a teacher of dimension 4 may return for three texts, case by case, and the table of it in docs/teachers.md.

Run as a script, this prints that table.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from distilvl.errors import DistilvlError
from distilvl.teachers.checks import checked
from distilvl.teachers.outputs import embeddings_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "teachers.md"
TEXTS = ["a dog", "a cat", "a bird"]
# Exact in every float type.
ROWS = np.array([[1.0, 2, 0, 0], [0, 0.5, 1, 0], [0, 0, 2, 0.25]])


class ModelOutput(OrderedDict[str, Any]):
    """As models of transformers return it."""


class OnAnotherDevice:
    """As CuPy's arrays do, it refuses to come to the CPU unasked."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")


class OnGpu(torch.Tensor):
    """As a tensor of CUDA does, it becomes a NumPy array only by way of the CPU."""

    def cpu(self, *_: object, **__: object) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def numpy(self, **_: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


class HasArray:
    """As arrays of JAX do."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return ROWS.astype(np.float32)


def tensor(dtype: torch.dtype = torch.float32, **options: Any) -> torch.Tensor:
    return torch.tensor(ROWS, dtype=dtype, **options)


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its way out of PyTorch
        return torch.quantize_per_tensor(tensor(), 0.1, 0, torch.qint8)


def unfit(value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[1, 2] = value
    return rows


async def later() -> np.ndarray:
    return ROWS


# What it is called in the document, and how it is made.
TAKEN: dict[str, Callable[[], Any]] = {
    "a NumPy array of `float16`, `float32`, `float64` or `longdouble`, in either byte order": lambda: ROWS.astype(
        ">f4"
    ),
    "a PyTorch tensor of `float16`, `bfloat16`, `float32` or `float64`": lambda: tensor(torch.bfloat16),
    "a tensor that requires a gradient, or was made in inference mode": lambda: tensor(requires_grad=True) * 1,
    "a tensor on a GPU": lambda: tensor(torch.bfloat16, requires_grad=True).as_subclass(OnGpu),
    "an array of another library that NumPy can read (JAX, TensorFlow, pandas)": HasArray,
    "a list or tuple of lists of numbers": lambda: tuple(ROWS.tolist()),
    "a list or tuple of arrays or tensors, each of shape `(D,)` or `(1, D)`": lambda: [row[None] for row in tensor()],
    "shape `(n, 1, D)`": lambda: ROWS[:, None],
    "for one item, shape `(D,)`": lambda: ROWS,
    "embeddings that are not L2-normalised": lambda: 1000 * ROWS,
}
REFUSED: dict[str, Callable[[], Any]] = {
    "NaN or infinity in an embedding": lambda: unfit(np.nan),
    "an embedding of zeros": lambda: ROWS * np.array([[1], [1], [0]]),
    "fewer embeddings, or more, than there are items": lambda: ROWS[:2],
    "embeddings of another dimension than `dim`": lambda: ROWS[:, :3],
    "embeddings of several dimensions": lambda: [ROWS[0], ROWS[1], ROWS[2, :3]],
    "whole numbers": lambda: ROWS.astype(int),
    "states of all tokens, shape `(n, L, D)`": lambda: np.stack([ROWS, ROWS], axis=1),
    "a list of batches": lambda: [tensor()[:2], tensor()[2:]],
    "a model's whole output": lambda: ModelOutput(text_embeds=tensor(), pooler_output=tensor()),
    "an object with such a field": lambda: SimpleNamespace(pooler_output=tensor()),
    "a dictionary": lambda: {"vectors": ROWS},
    "a tuple of parts": lambda: (torch.zeros(3, 7, 4), tensor()),
    "a sparse tensor": lambda: tensor().to_sparse(),
    "a sparse matrix of SciPy": lambda: scipy.sparse.csr_matrix(ROWS),
    "a quantised tensor": quantised,
    "a tensor without numbers": lambda: torch.zeros(3, 4, device="meta"),
    "an array that does not come to the CPU": OnAnotherDevice,
    "a generator": lambda: (row for row in ROWS),
    "nothing": lambda: None,
    "from an `async` method": later,
    "text": lambda: "0.1 0.2",
}


class Mine:
    """A teacher that returns `output` for texts."""

    name, revision, dim = "mine", "1", 4

    def __init__(self, output: Any) -> None:
        self.output = output

    def encode_images(self, images: Any) -> Any:
        raise AssertionError

    def encode_texts(self, texts: Any) -> Any:
        return self.output


def refusal(make: Callable[[], Any]) -> str:
    """What is said of the output that `make` makes."""
    try:
        checked(Mine(make())).encode_texts(TEXTS)
    except DistilvlError as error:
        return str(error)
    raise AssertionError("it was taken")


def table() -> str:
    """The Markdown of all cases."""
    lines = ["| returned | |", "|---|---|", *(f"| {name} | taken |" for name in TAKEN)]
    lines += [f"| {name} | {refusal(make)} |" for name, make in REFUSED.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [name for name in TAKEN if "one item" not in name])
def test_what_is_taken(name: str):
    rows = checked(Mine(TAKEN[name]())).encode_texts(TEXTS)
    assert np.issubdtype(rows.dtype, np.floating)
    assert rows.dtype.isnative
    np.testing.assert_array_equal(rows / (1000 if "not L2" in name else 1), ROWS)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_float_of_numpy(kind: type, order: str):
    rows = embeddings_of(ROWS.astype(np.dtype(kind).newbyteorder(order)), 3)
    np.testing.assert_array_equal(rows, ROWS)
    assert rows.dtype.itemsize <= 8


@pytest.mark.parametrize(
    "kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e5m2, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_every_float_of_torch(kind: torch.dtype, requires_grad: bool):
    made = tensor(kind)
    np.testing.assert_array_equal(embeddings_of(made.requires_grad_() if requires_grad else made, 3), ROWS)
    np.testing.assert_array_equal(embeddings_of(list(made.detach()), 3), ROWS)


def test_tensors_of_inference_mode_and_views_of_others():
    with torch.inference_mode():
        made = tensor()
    np.testing.assert_array_equal(embeddings_of(made, 3), ROWS)
    np.testing.assert_array_equal(embeddings_of(tensor().T.contiguous().T, 3), ROWS)
    np.testing.assert_array_equal(embeddings_of(torch._neg_view(-tensor()), 3), ROWS)
    np.testing.assert_array_equal(embeddings_of(torch.nn.Parameter(tensor()), 3), ROWS)


def test_bfloat16_of_other_libraries():
    kinds = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(embeddings_of(ROWS.astype(kinds.bfloat16), 3), ROWS)


@pytest.mark.parametrize("make", [lambda: ROWS[0], lambda: ROWS[0].tolist(), lambda: tensor()[0], lambda: [ROWS[0]]])
def test_one_item(make):
    np.testing.assert_array_equal(embeddings_of(make(), 1), ROWS[:1])


def test_nothing_is_copied_without_need():
    assert embeddings_of(ROWS, 3) is ROWS
    made = tensor()
    assert np.shares_memory(embeddings_of(made, 3), made.numpy())


def test_masked_numbers_and_lists_with_holes():
    with pytest.raises(ValueError, match="masked"):
        embeddings_of(np.ma.masked_less(ROWS, 0.3), 3)
    assert embeddings_of(np.ma.masked_less(ROWS, -1), 3).shape == (3, 4)
    with pytest.raises(ValueError, match="list that is no array of numbers as an embedding"):
        embeddings_of([[1.0, None], [1.0, 2.0]], 2)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_one_line(name: str):
    said = refusal(REFUSED[name])
    assert "\n" not in said
    assert "teacher 'mine' (class Mine)" in said
    assert any(repr(text) in said for text in TEXTS)


def test_long_texts_are_shortened():
    with pytest.raises(DistilvlError, match=r"for 'a dog{30,80}…' and 1 more") as caught:
        checked(Mine(None)).encode_texts(["a dog" + 10_000 * "g", "b"])
    assert len(str(caught.value)) < 300


def test_the_document_has_these_cases_and_these_words():
    assert table() in DOCUMENT.read_text(encoding="utf-8")


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201
