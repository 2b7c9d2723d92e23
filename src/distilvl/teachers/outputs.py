"""One call to a teacher of any kind: one NumPy array of embeddings of its dimension comes back,
or one line that says why not."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.teachers.base import Teacher

Rows = npt.NDArray[np.floating[Any]]

# Where models keep the rows that are wanted; an answer with one of them is returned whole by mistake.
_FIELDS = ("image_embeds", "text_embeds", "sentence_embedding", "embeddings", "pooler_output")
_FLOATS = "Return floating-point numbers, such as rows.astype(numpy.float32)."


class UnfitOutputError(ValueError):
    """An output that cannot be rows.

    Args:
        reason: what it is, to follow "it returned".
        remedy: what its author can do about it.
        position: of the item at fault, where there is a single one.
    """

    def __init__(self, reason: str, remedy: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.remedy, self.position = reason, remedy, position


def rows_of(output: object, count: int) -> Rows:
    """The rows of `output`, shape (n, D), in a float type of NumPy; not copied where it is such an array already.

    Taken are: arrays of NumPy in any float type, and whatever NumPy makes such an array of; tensors of PyTorch, on any
    device and with or without gradients (bfloat16 becomes float32); lists and tuples of rows, each a list of numbers,
    an array or a tensor. A dimension of 1 too many, as in (n, 1, D), is taken off; of one item the row (D,) will do.

    Args:
        output: what a teacher's method returned.
        count: number of items that it was asked about.

    Raises:
        UnfitOutputError: anything else.
    """
    _refuse_whole_answers(output)
    rows = _stacked(output) if isinstance(output, list | tuple) else _floats(_array(output), type(output).__name__)
    if rows.ndim == 1 and count == 1:
        rows = rows[None]
    if rows.ndim == 3 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim != 2:
        raise UnfitOutputError(f"an array of shape {rows.shape}", f"Return rows of the shape ({count}, D).")
    return rows


def _refuse_whole_answers(output: object) -> None:
    """A model's answer of many parts, or nothing that could be rows, with the words that help."""
    kind = type(output).__name__
    if output is None:
        raise UnfitOutputError("None", "Does it end in `return`?")
    if inspect.isawaitable(output):
        if inspect.iscoroutine(output):
            output.close()
        raise UnfitOutputError(f"a {kind}", "Write it without `async`.")
    if isinstance(output, Iterator):
        raise UnfitOutputError(f"a {kind}", "Return an array, such as numpy.stack(list(rows)).")
    if isinstance(output, str | bytes | bytearray):
        raise UnfitOutputError(f"a {kind}", _FLOATS)
    has = [name for name in _FIELDS if _field(output, name)]
    if has:
        raise UnfitOutputError(f"a {kind} with {' and '.join(has)}", f"Return its {' or '.join(has)}.")
    if isinstance(output, Mapping):
        names = ", ".join(map(str, list(output)[:5]))
        raise UnfitOutputError(f"a {kind} of {names or 'nothing'}", "Return the array of rows in it.")


def _field(output: object, name: str) -> bool:
    value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
    return value is not None


def _stacked(rows: list[Any] | tuple[Any, ...]) -> Rows:
    if all(isinstance(row, list | tuple) and all(type(value) in (int, float) for value in row) for row in rows):
        # Numbers alone: one conversion of all is many times as fast.
        if len({len(row) for row in rows}) > 1:
            raise _uneven([len(row) for row in rows])
        return _floats(np.array(rows), "list")
    if all(np.ndim(row) == 0 and isinstance(row, float | np.floating) for row in rows):
        return np.array(rows)
    parts = [_part(row, k) for k, row in enumerate(rows)]
    flat = [part[0] if part.ndim == 2 and len(part) == 1 else part for part in parts]
    if any(part.ndim != 1 for part in flat):
        shapes = ", ".join(str(part.shape) for part in parts[:3])
        raise UnfitOutputError(
            f"a {type(rows).__name__} of {len(rows)} arrays of shapes {shapes}",
            "Return one array with a row an item; batches are joined with torch.cat or numpy.concatenate.",
        )
    if len({len(part) for part in flat}) > 1:
        raise _uneven([len(part) for part in flat])
    return np.stack(flat)


def _part(row: object, position: int) -> Rows:
    try:
        _refuse_whole_answers(row)
        return _floats(_array(row), type(row).__name__)
    except UnfitOutputError as error:
        raise UnfitOutputError(f"{error.reason} as a row", error.remedy, position) from error


def _uneven(widths: list[int]) -> UnfitOutputError:
    odd = next(k for k, width in enumerate(widths) if width != widths[0])
    return UnfitOutputError(
        f"rows of different widths, {widths[0]} and {widths[odd]}", "Return rows of one width for all items.", odd
    )


def _array(output: Any) -> npt.NDArray[Any]:
    """`output` as an array of some type; the bits of a float type that NumPy lacks are widened."""
    torch = sys.modules.get("torch")
    kind = type(output).__name__
    try:
        if torch is not None and isinstance(output, torch.Tensor):
            return _of_tensor(output, torch)
        if callable(getattr(output, "toarray", None)):
            raise UnfitOutputError(f"a sparse {kind}", "Return its toarray().")
        if isinstance(output, np.ma.MaskedArray) and np.ma.is_masked(output):
            raise UnfitOutputError("an array with masked numbers", "Fill them, or leave such items out.")
        return np.asarray(output)
    except UnfitOutputError:
        raise
    # Tensors and arrays of other libraries raise what they like, such as their hint on how to come off a device.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UnfitOutputError(
            f"a {kind} that cannot be made an array ({type(error).__name__}: {reason})", "Return a NumPy array."
        ) from error


def _of_tensor(tensor: Any, torch: Any) -> npt.NDArray[Any]:
    if tensor.is_meta:
        raise UnfitOutputError("a tensor on the device meta, which holds no numbers", "Load the model's weights.")
    if tensor.is_quantized:
        raise UnfitOutputError("a quantised tensor", "Return its dequantize().")
    if tensor.is_nested:
        raise UnfitOutputError("a nested tensor", "Return one tensor of the shape (n, D).")
    if tensor.layout is not torch.strided:
        raise UnfitOutputError("a sparse tensor", "Return its to_dense().")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: npt.NDArray[Any] = tensor.cpu().resolve_conj().resolve_neg().numpy()
    return array


def _floats(array: npt.NDArray[Any], kind: str) -> Rows:
    if array.dtype.kind == "V" and array.dtype.names is None and "float" in array.dtype.name:
        # bfloat16 and the 8-bit floats of other libraries.
        array = array.astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        what = "that is no array of numbers" if array.dtype.kind in "OSU" else f"of numbers of the type {array.dtype}"
        raise UnfitOutputError(f"a {kind} {what}", _FLOATS)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


Modality = Literal["image", "text"]
_LONGEST_NAME = 80


def ask(
    teacher: Teacher, modality: Modality, items: Sequence[Any], names: Sequence[str], *, find_fault: bool = True
) -> Rows:
    """The rows of `teacher` for `items`.

    Args:
        teacher: whom to ask.
        modality: of all items.
        items: RGB images or texts, at least one.
        names: what an error message calls each item.
        find_fault: when the teacher fails at several items, ask again, in halves, to name the one at fault; otherwise
            the first is named.

    Returns:
        Shape (n, dim), in a float type of NumPy, finite, none all zero; the numbers as the teacher gave them.

    Raises:
        DistilvlError: the teacher fails, or what it gives is not such rows; the message names its class, the item and
            the remedy. What it raised is the cause.
    """
    method = "encode_images" if modality == "image" else "encode_texts"
    encode: Callable[[Any], object] = getattr(teacher, method)
    try:
        # A list of its own: what a teacher does to it must not change ours.
        output = encode(list(items))
    except DistilvlError:
        raise
    # Anything at all can go wrong in code that is not ours.
    except (Exception, SystemExit) as error:
        where, remedy = named(names, modality), "Mend the teacher, or leave that item out."
        if find_fault and len(items) > 1:
            alone = _at_fault(encode, items)
            if alone is None:
                where, remedy = f"{where}, together", "Let it work through them in smaller batches."
            else:
                where = named([names[alone]], modality)
        raise DistilvlError(f"{who(teacher)} failed in {method} at {where}: {said(error)}.", remedy) from error
    return answered(teacher, output, modality, names)


def answered(teacher: Teacher, output: object, modality: Modality, names: Sequence[str]) -> Rows:
    """What `teacher` gave for the items called `names`, as rows; as `ask`."""
    try:
        rows = rows_of(output, len(names))
    except UnfitOutputError as error:
        at = names if error.position is None else names[error.position : error.position + 1]
        raise DistilvlError(
            f"{who(teacher)} returned {error.reason} for {named(at, modality)}.", error.remedy
        ) from error
    if len(rows) != len(names):
        raise DistilvlError(
            f"{who(teacher)} gave {len(rows)} rows for {len(names)} {modality}s: {named(names, modality)}.",
            "Return one row an item, in the order of the items.",
        )
    if rows.shape[1] != teacher.dim:
        raise DistilvlError(
            f"{who(teacher)} gave rows of width {rows.shape[1]} for {named(names, modality)}, but its dim is "
            f"{teacher.dim}.",
            "Images and texts share one space: give rows of the width dim for both, or set dim to their width.",
        )
    # The largest number tells all: squares of float16, or of huge numbers, would overflow.
    largest = np.abs(rows).max(axis=1)
    unfit = ~(np.isfinite(largest) & (largest > 0))
    if unfit.any():
        first = int(np.argmax(unfit))
        what = "all zero" if largest[first] == 0 else "not finite"
        raise DistilvlError(
            f"{who(teacher)} gave features that are {what} for {named([names[first]], modality)} "
            f"({int(unfit.sum())} of {len(rows)} rows).",
            "Check that item and the teacher: such features cannot be learned from.",
        )
    return rows


def who(teacher: Teacher) -> str:
    """What error messages call `teacher`: name and class."""
    return f"teacher {teacher.name!r} (class {teacher.__class__.__name__})"


def named(names: Sequence[str], modality: Modality) -> str:
    """The first of the items called `names`, shortened, and how many there are besides.

    Of a long text the start is left, of a long path the end.
    """
    name = names[0]
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}…" if modality == "text" else f"…{name[-_LONGEST_NAME:]}"
    return repr(name) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def said(error: BaseException) -> str:
    """Kind and words of an error on one line, without the full stop."""
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _at_fault(encode: Callable[[Any], object], items: Sequence[Any]) -> int | None:
    """The first item at which `encode` fails alone, found by halving; None where all of them together are too much."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(encode, items[low:middle]):
            high = middle
        else:
            low = middle
    return low if _fails(encode, items[low:high]) else None


def _fails(encode: Callable[[Any], object], items: Sequence[Any]) -> bool:
    try:
        encode(list(items))
    except (Exception, SystemExit):  # whatever it was the first time
        return True
    return False
