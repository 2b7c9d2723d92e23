"""Checked embeddings: L2-normalised in float32 for products, and cosines of single pairs in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# L2-normalised vectors that differ by less in every coordinate are one vector, up to float32 rounding.
CONSTANT_SPREAD = 1e-6
# Squared lengths for which neither the coordinates nor one over the length leave float32's range.
_SQUARES = (1e-30, 1e30)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Checked features of n items."""

    raw: npt.NDArray[Any]  # (n, D), as given, float16, float32 or float64
    lengths: Floats  # L2 norm of each row of `raw`, (n,)
    unit: npt.NDArray[np.float32]  # L2-normalised, each coordinate within 2^-22 of its size of the exact one

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.raw.shape[1])

    def take(self, rows: npt.NDArray[Any] | slice) -> Embeddings:
        """Some of the items, in the order given."""
        return Embeddings(self.raw[rows], self.lengths[rows], self.unit[rows])

    def exact(self, rows: npt.NDArray[Any] | slice = slice(None)) -> Floats:
        """Some of the items, L2-normalised in double precision, (k, D)."""
        wide: Floats = self.raw[rows].astype(np.float64)
        wide /= self.lengths[rows, None]
        return wide


def checked_embeddings(features: npt.ArrayLike, what: str, *, different: bool = True) -> Embeddings:
    """`features`, (n, D) numbers of any scale, as `Embeddings`.

    `DistilvlError` for another shape or type, NaN or infinity, a zero vector, or all the same if they have to be
    `different`; it calls them `what`.
    """
    raw: npt.NDArray[Any] = np.asarray(features)
    if raw.ndim != 2 or 0 in raw.shape:
        raise DistilvlError(f"{what} have shape {raw.shape}.", "Give one row an item: shape (items, D).")
    if not (np.issubdtype(raw.dtype, np.floating) or np.issubdtype(raw.dtype, np.integer)):
        raise DistilvlError(f"{what} have the type {raw.dtype}.", "Give real numbers.")
    if raw.dtype not in (np.float16, np.float32, np.float64):
        raw = raw.astype(np.float64)
    squares = _squares(raw)
    if not ((squares > _SQUARES[0]) & (squares < _SQUARES[1])).all():  # false for NaN, too
        # Rows divided by their largest coordinate, so that squares neither overflow nor vanish.
        largest: Floats = np.abs(raw.astype(np.float64)).max(axis=1)
        remedy = "Training may have diverged, or a float16 overflowed."
        refuse_any(~np.isfinite(largest), f"{what} hold NaN or infinity", remedy)
        refuse_any(largest == 0, f"{what} hold a vector of zeros", "A zero vector has no direction; re-extract it.")
        raw = raw / largest[:, None]
        squares = _squares(raw)
    lengths = np.sqrt(squares)
    unit = np.multiply(raw, (1 / lengths)[:, None].astype(np.float32), dtype=np.float32, casting="same_kind")
    # A few at a time, as good features are told by the first few.
    differ = (np.abs(unit[k : k + 256] - unit[0]).max() >= CONSTANT_SPREAD for k in range(0, len(unit), 256))
    if different and len(unit) > 1 and not any(differ):
        remedy = "The model has collapsed, or was given the same item again and again; nothing can be ranked."
        raise DistilvlError(f"{what} are the same for all {len(unit)} items.", remedy)
    return Embeddings(raw, lengths, unit)


def checked_gallery(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike
) -> tuple[Embeddings, Embeddings, Integers]:
    """The arguments of `score`, checked: each integer must point at an image, and each image have a text."""
    images = checked_embeddings(image_features, "image features")
    texts = checked_embeddings(text_features, "text features")
    owner = np.asarray(text_image)
    if images.dim != texts.dim:
        dims = f"image features have dimension {images.dim}, text features {texts.dim}."
        raise DistilvlError(dims, "Take both from the same model.")
    if owner.shape != (len(texts),) or not np.issubdtype(owner.dtype, np.integer):
        problem = f"text_image has shape {owner.shape} and type {owner.dtype} for {len(texts)} texts."
        raise DistilvlError(problem, "Give one integer a text: the row of its image.")
    outside = (owner < 0) | (owner >= len(images))
    refuse_any(outside, f"text_image points outside the {len(images)} images", "Count image rows from 0.")
    owner = owner.astype(np.int64)
    missing = np.bincount(owner, minlength=len(images)) == 0
    refuse_any(missing, "an image has no texts", "Leave it out of the gallery, or give it a caption.")
    return images, texts, owner


def refuse_any(bad: npt.NDArray[np.bool_], what: str, remedy: str) -> None:
    """`DistilvlError` that names the first row where `bad` is true; quiet when none is."""
    if bad.any():
        raise DistilvlError(f"{what} (first at row {int(np.argmax(bad))}, {int(bad.sum())} in all).", remedy)


def cosines(left: Embeddings, right: Embeddings, left_rows: Integers, right_rows: Integers) -> Floats:
    """Cosine of pair p, `left[left_rows[p]]` with `right[right_rows[p]]`, in double precision: (p,), error 1e-15."""
    out = np.empty(len(left_rows))
    for start in range(0, len(out), 128):  # so few that they stay in a core's cache
        part = slice(start, start + 128)
        pair = left.raw[left_rows[part]], right.raw[right_rows[part]]
        np.einsum("pd,pd->p", *pair, dtype=np.float64, casting="same_kind", out=out[part])
    out /= left.lengths[left_rows] * right.lengths[right_rows]
    return out


def _squares(raw: npt.NDArray[Any]) -> Floats:
    """Squared lengths in double precision, (n,); not finite where a row is not, or where its squares overflow."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares: Floats = np.einsum("nd,nd->n", raw, raw, dtype=np.float64)
    return squares
