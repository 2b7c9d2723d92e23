"""`ask`: one question to a teacher of any kind. Rows of its width come back, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from distilvl.errors import DistilvlError
from distilvl.teachers.base import Teacher
from distilvl.teachers.outputs import Rows, UnfitOutputError, rows_of

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
