"""What may become a stored row: right width, finite, not zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.features.manifest import Manifest


def storable_rows(
    features: npt.NDArray[Any],
    count: int,
    manifest: Manifest,
    owner: str,
    names: Sequence[str] | None = None,
) -> npt.NDArray[np.float16]:
    """Check `features` and make them float16 rows, of unit length when the manifest says so.

    Args:
        features: what a teacher returned; should have shape (count, D).
        count: number of items that were asked.
        manifest: gives the width D and whether rows are normalised.
        owner: whose rows these are, for error messages.
        names: what an error message calls each item; its position if not given.

    Raises:
        DistilvlError: wrong shape or type, or a row that is not finite or all zero; it names the first one.
    """
    if features.ndim != 2 or features.shape[0] != count:
        raise DistilvlError(
            f"{owner} was given features of shape {features.shape}, not ({count}, {manifest.dim}).",
            "A teacher returns one row for each item.",
        )
    if features.shape[1] != manifest.dim:
        raise DistilvlError(
            f"{owner} has width {manifest.dim}, but the features have width {features.shape[1]}.",
            "Use the teacher that made the store, or another --out folder.",
        )
    if not np.issubdtype(features.dtype, np.floating):
        raise DistilvlError(
            f"{owner} was given features of type {features.dtype}.", "Features are floating-point numbers."
        )
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    good = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
    scaled = wide / np.where(good[:, None], lengths, 1) if manifest.normalized else wide
    # A row of tiny or huge numbers is fine until it is rounded to float16; then the check below finds it.
    with np.errstate(over="ignore"):
        rows = scaled.astype(np.float16)
    good &= np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    if not good.all():
        first = int(np.argmin(good))
        item = repr(names[first]) if names is not None else f"row {first}"
        what = "all zero" if np.isfinite(rows[first]).all() else "not finite"
        raise DistilvlError(
            f"{owner} was given features that are {what} for {item} ({int((~good).sum())} of {count} rows).",
            "Check that item and the teacher: such features cannot be learned from.",
        )
    return rows
