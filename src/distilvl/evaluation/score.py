"""Retrieval scores from features: R@1, R@5, R@10 both ways, RSUM, and accuracy on hard negatives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.ranks import TIE_TOLERANCE, Floats, Integers, recall_at, retrieval_ranks, unit_rows

CONSTANT_SPREAD = 1e-6
"""Unit rows that differ by less than this in every coordinate are one vector, up to float32 rounding."""


@dataclass(frozen=True, slots=True)
class Recalls:
    """R@1, R@5 and R@10 of one direction, percent."""

    r1: float
    r5: float
    r10: float


@dataclass(frozen=True, slots=True)
class Score:
    """Retrieval quality on a gallery of `images` images and `texts` texts."""

    image_to_text: Recalls
    text_to_image: Recalls
    images: int
    texts: int

    @property
    def rsum(self) -> float:
        """RSUM: the sum of the six recalls, 0 to 600."""
        both = (self.image_to_text, self.text_to_image)
        return sum(recalls.r1 + recalls.r5 + recalls.r10 for recalls in both)

    def as_dict(self) -> dict[str, Any]:
        """`{"image_to_text": {"r1", "r5", "r10"}, "text_to_image": {...}, "rsum"}`, for JSON."""
        return {
            "image_to_text": asdict(self.image_to_text),
            "text_to_image": asdict(self.text_to_image),
            "rsum": self.rsum,
        }


def score(image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike) -> Score:
    """Score features on image-text retrieval by cosine similarity; ties count against the model.

    Args:
        image_features: (n, D), one row an image; any scale, rows are normalised here.
        text_features: (m, D).
        text_image: (m,), for each text the row of its image, in [0, n).

    Raises:
        DistilvlError: shapes that do not fit, NaN or infinity, a zero row, features that are all the same,
            a row of `text_image` out of range, an image without texts.
    """
    images = _checked_rows(image_features, "image features")
    texts = _checked_rows(text_features, "text features")
    owner = _checked_owner(text_image, images, texts)
    image_ranks, text_ranks = retrieval_ranks(images, texts, owner)
    return Score(_recalls(image_ranks), _recalls(text_ranks), images=len(images), texts=len(texts))


def hard_negative_accuracy(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, negative_features: npt.ArrayLike
) -> float:
    """Percent of triples (image, true caption, caption wrong in one detail) that are told apart.

    A triple counts when the true caption is strictly more similar to the image than the wrong one.

    Args:
        image_features, text_features, negative_features: (n, D) each, row i of all three is triple i.

    Raises:
        DistilvlError: as for `score`.
    """
    images = _checked_rows(image_features, "image features")
    texts = _checked_rows(text_features, "text features")
    negatives = _checked_rows(negative_features, "hard-negative features")
    if not images.shape == texts.shape == negatives.shape:
        raise DistilvlError(
            f"triples have shapes {images.shape}, {texts.shape} and {negatives.shape}.",
            "Give one image, one caption and one hard negative a row, all of the same width.",
        )
    gap = np.einsum("nd,nd->n", images, texts) - np.einsum("nd,nd->n", images, negatives)
    return 100.0 * float(np.mean(gap > TIE_TOLERANCE))


def format_score(score: Score) -> str:
    """One line: `i2t 35.6 64.8 77.3 / t2i 26.6 57.8 71.0 / RSUM 333.1`."""
    i2t, t2i = score.image_to_text, score.text_to_image
    return (
        f"i2t {i2t.r1:.1f} {i2t.r5:.1f} {i2t.r10:.1f} / t2i {t2i.r1:.1f} {t2i.r5:.1f} {t2i.r10:.1f}"
        f" / RSUM {score.rsum:.1f}"
    )


def _recalls(ranks: Integers) -> Recalls:
    return Recalls(recall_at(ranks, 1), recall_at(ranks, 5), recall_at(ranks, 10))


def _checked_rows(features: npt.ArrayLike, what: str) -> Floats:
    """Unit rows, or an error that names the first bad row."""
    rows = np.asarray(features)
    if rows.ndim != 2 or 0 in rows.shape:
        raise DistilvlError(f"{what} have shape {rows.shape}.", "Give one row of numbers an item: (items, width).")
    _refuse_any(~np.isfinite(rows).all(axis=1), f"{what} hold NaN or infinity", "Retrain or re-extract them.")
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    _refuse_any(lengths == 0, f"{what} hold a row of zeros", "A zero vector has no direction; re-extract it.")
    unit = unit_rows(rows)
    if len(unit) > 1 and float(np.ptp(unit, axis=0).max()) < CONSTANT_SPREAD:
        raise DistilvlError(
            f"{what} are the same for all {len(unit)} items.",
            "The model has collapsed, or was asked the same item again and again; nothing can be ranked.",
        )
    return unit


def _checked_owner(text_image: npt.ArrayLike, images: Floats, texts: Floats) -> Integers:
    """`text_image` as integers that point at existing images, each image having a text."""
    owner = np.asarray(text_image)
    if images.shape[1] != texts.shape[1]:
        raise DistilvlError(
            f"image features are {images.shape[1]} wide and text features {texts.shape[1]}.",
            "Take both from the same model.",
        )
    if owner.shape != (len(texts),) or not np.issubdtype(owner.dtype, np.integer):
        raise DistilvlError(
            f"text_image has shape {owner.shape} and type {owner.dtype} for {len(texts)} texts.",
            "Give one integer a text: the row of its image.",
        )
    outside = np.isin(owner, np.arange(len(images)), invert=True)
    _refuse_any(outside, f"text_image points outside the {len(images)} images", "Count image rows from 0.")
    missing = np.isin(np.arange(len(images)), owner, invert=True)
    _refuse_any(missing, "an image has no texts", "Leave it out of the gallery, or give it a caption.")
    return owner.astype(np.int64)


def _refuse_any(bad: npt.NDArray[np.bool_], what: str, remedy: str) -> None:
    if bad.any():
        raise DistilvlError(f"{what} (first at row {int(np.argmax(bad))}, {int(bad.sum())} in all).", remedy)
