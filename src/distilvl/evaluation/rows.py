"""Features as checked unit rows: float32 for products, and exact cosines in double precision for single pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import cpu_count, environ
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CONSTANT_SPREAD = 1e-6
"""Unit rows that differ by less than this in every coordinate are one vector, up to float32 rounding."""

_SQUARES = (1e-30, 1e30)
"""Squared lengths for which neither the rows nor one over their length leave float32's range."""
_PAIRS = 128
"""Pairs whose rows are gathered at a time: small enough to stay in a core's cache."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, eq=False)
class Rows:
    """Checked features of n items.

    Attributes:
        raw: (n, D), as given, float16, float32 or float64.
        lengths: L2 norm of each row, (n,).
        unit: (n, D) float32, each coordinate within 2^-22 of its size of the exact unit row's.
    """

    raw: npt.NDArray[Any]
    lengths: Floats
    unit: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def width(self) -> int:
        """D."""
        return int(self.raw.shape[1])

    def take(self, rows: npt.NDArray[Any] | slice) -> Rows:
        """Some of the rows, in the order given."""
        return Rows(self.raw[rows], self.lengths[rows], self.unit[rows])

    def exact(self, rows: npt.NDArray[Any] | slice) -> Floats:
        """Unit rows in double precision, (k, D)."""
        wide: Floats = self.raw[rows].astype(np.float64) / self.lengths[rows, None]
        return wide


def checked_rows(features: npt.ArrayLike, what: str, *, different: bool = True) -> Rows:
    """`features` as `Rows`, or an error that calls them `what`.

    Args:
        features: (n, D) numbers of any scale, n and D at least 1.
        different: refuse rows that are all the same.

    Raises:
        DistilvlError: another shape or type, NaN or infinity, a zero row, rows that are all the same if `different`.
    """
    raw = np.asarray(features)
    if raw.ndim != 2 or 0 in raw.shape:
        raise DistilvlError(f"{what} have shape {raw.shape}.", "Give one row an item: shape (items, width).")
    if not (np.issubdtype(raw.dtype, np.floating) or np.issubdtype(raw.dtype, np.integer)):
        raise DistilvlError(f"{what} have the type {raw.dtype}.", "Give real numbers.")
    if raw.dtype not in (np.float16, np.float32, np.float64):
        raw = raw.astype(np.float64)
    squares = _squares(raw)
    if not ((squares > _SQUARES[0]) & (squares < _SQUARES[1])).all():  # false for NaN, too
        raw = _rescaled(raw, what)
        squares = _squares(raw)
    lengths = np.sqrt(squares)
    unit = np.multiply(raw, (1 / lengths)[:, None].astype(np.float32), dtype=np.float32, casting="same_kind")
    if different:
        _refuse_constant(unit, what)
    return Rows(raw, lengths, unit)


def checked_owner(text_image: npt.ArrayLike, images: Rows, texts: Rows) -> Integers:
    """`text_image` as integers that point at existing images, each image having a text.

    Raises:
        DistilvlError: widths that differ, another shape or type, an image that does not exist, one without texts.
    """
    owner = np.asarray(text_image)
    if images.width != texts.width:
        raise DistilvlError(
            f"image features are {images.width} wide and text features {texts.width}.",
            "Take both from the same model.",
        )
    if owner.shape != (len(texts),) or not np.issubdtype(owner.dtype, np.integer):
        raise DistilvlError(
            f"text_image has shape {owner.shape} and type {owner.dtype} for {len(texts)} texts.",
            "Give one integer a text: the row of its image.",
        )
    outside = (owner < 0) | (owner >= len(images))
    refuse_any(outside, f"text_image points outside the {len(images)} images", "Count image rows from 0.")
    owner = owner.astype(np.int64)
    missing = np.bincount(owner, minlength=len(images)) == 0
    refuse_any(missing, "an image has no texts", "Leave it out of the gallery, or give it a caption.")
    return owner


def refuse_any(bad: npt.NDArray[np.bool_], what: str, remedy: str) -> None:
    """`DistilvlError` that names the first row where `bad` is true; quiet when none is."""
    if bad.any():
        raise DistilvlError(f"{what} (first at row {int(np.argmax(bad))}, {int(bad.sum())} in all).", remedy)


def cosines(left: Rows, right: Rows, left_rows: Integers, right_rows: Integers) -> Floats:
    """Cosine of pair p, row `left_rows[p]` with row `right_rows[p]`, in double precision: (p,), error about 1e-15."""
    chunks = [slice(start, start + _PAIRS) for start in range(0, len(left_rows), _PAIRS)]
    out = np.empty(len(left_rows))

    def fill(chunk: slice) -> None:
        pair = left.raw[left_rows[chunk]], right.raw[right_rows[chunk]]
        np.einsum("pd,pd->p", *pair, dtype=np.float64, casting="same_kind", out=out[chunk])

    def fill_all(part: list[slice]) -> None:
        for chunk in part:
            fill(chunk)

    in_threads(fill_all, split(chunks, threads()))
    out /= left.lengths[left_rows] * right.lengths[right_rows]
    return out


def threads() -> int:
    """Threads to use: as many as BLAS is allowed, at most one a core."""
    limit = environ.get("OMP_NUM_THREADS", "")
    cores = cpu_count() or 1
    return max(1, min(cores, int(limit))) if limit.isdigit() else cores


def split(items: list[_In], parts: int) -> list[list[_In]]:
    """`items` dealt out to at most `parts` lists, none empty, in runs of neighbours."""
    size = -(-len(items) // parts) or 1
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_threads(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """`[work(item) for item in items]`, one thread an item; NumPy computes outside Python's lock."""
    todo = list(items)
    if len(todo) < 2:
        return [work(item) for item in todo]
    with ThreadPoolExecutor(len(todo)) as pool:
        return list(pool.map(work, todo))


def _squares(raw: npt.NDArray[Any]) -> Floats:
    """Squared lengths in double precision, (n,); not finite where a row is not, or where its squares overflow."""
    quiet: AbstractContextManager[Any] = (
        np.errstate(over="ignore", under="ignore", invalid="ignore") if raw.dtype == np.float64 else nullcontext()
    )
    with quiet:
        squares: Floats = np.einsum("nd,nd->n", raw, raw, dtype=np.float64)
    return squares


def _rescaled(raw: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """Rows divided by their largest coordinate, so that squares neither overflow nor vanish."""
    wide = raw.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1)
    refuse_any(
        np.logical_not(finite), f"{what} hold NaN or infinity", "Training may have diverged, or a float16 overflowed."
    )
    largest: Floats = np.abs(wide).max(axis=1)
    refuse_any(np.equal(largest, 0), f"{what} hold a row of zeros", "A zero vector has no direction; re-extract it.")
    scaled: npt.NDArray[Any] = wide / largest[:, None]
    return scaled


def _refuse_constant(unit: npt.NDArray[np.float32], what: str) -> None:
    if len(unit) < 2:
        return
    for start in range(0, len(unit), 256):  # good features are told by the first few rows
        if np.abs(unit[start : start + 256] - unit[0]).max() >= CONSTANT_SPREAD:
            return
    raise DistilvlError(
        f"{what} are the same for all {len(unit)} items.",
        "The model has collapsed, or was asked the same item again and again; nothing can be ranked.",
    )
