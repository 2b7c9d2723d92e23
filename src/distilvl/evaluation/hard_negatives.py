"""Accuracy on hard negatives: captions that are wrong in one detail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.ranks import TIE_TOLERANCE
from distilvl.evaluation.rows import checked_rows, cosines


def hard_negative_accuracy(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, negative_features: npt.ArrayLike
) -> float:
    """Percent of triples (image, true caption, caption wrong in one detail) that are told apart.

    A triple counts when the true caption is strictly more similar to the image than the wrong one.

    Args:
        image_features, text_features, negative_features: (n, D) each, row i of all three is triple i.

    Raises:
        DistilvlError: shapes that do not fit, NaN or infinity, a zero row.
    """
    # Triples may well be of one image, or have one wrong caption.
    images = checked_rows(image_features, "image features", different=False)
    texts = checked_rows(text_features, "text features", different=False)
    negatives = checked_rows(negative_features, "hard-negative features", different=False)
    if not images.raw.shape == texts.raw.shape == negatives.raw.shape:
        raise DistilvlError(
            f"triples have shapes {images.raw.shape}, {texts.raw.shape} and {negatives.raw.shape}.",
            "Give one image, one caption and one hard negative a row, all of the same width.",
        )
    row = np.arange(len(images))
    gap = cosines(images, texts, row, row) - cosines(images, negatives, row, row)
    return 100.0 * float(np.mean(gap > TIE_TOLERANCE))
