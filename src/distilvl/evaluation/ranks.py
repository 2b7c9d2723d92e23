"""Exact retrieval ranks in both directions, a block of images at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

TIE_TOLERANCE = 1e-9
"""Similarities closer than this are a tie.

The same dot product comes out of a matrix product with other last bits at another position or block size: in
double precision, about 1e-15 for unit rows. A million times that, identical rows always tie; a hundred times
finer than the rounding of float32 features, different rows practically never do."""

BLOCK = 2**22
"""Similarities held at a time (32 MiB), so that memory does not grow with n x m."""


def retrieval_ranks(
    images: npt.NDArray[Any], texts: npt.NDArray[Any], text_image: npt.NDArray[Any]
) -> tuple[Integers, Integers]:
    """Ranks of the right answers, 1 for the first place.

    Ties count against the model: a wrong item as similar as the right one is placed before it. So a model
    that gives every item the same feature ends last, not first.

    Args:
        images: unit rows (n, D).
        texts: unit rows (m, D).
        text_image: row of each text's image, (m,); every image has at least one text.

    Returns:
        Image->text: for each image the rank of the best-placed of its own texts among all, (n,); its other
        texts are not counted as wrong. Text->image: for each text the rank of its image, (m,).
    """
    images, texts = images.astype(np.float64, copy=False), texts.astype(np.float64, copy=False)
    own = np.einsum("md,md->m", texts, images[text_image])
    best_own = np.full(len(images), -np.inf)
    np.maximum.at(best_own, text_image, own)

    image_ranks = np.ones(len(images), dtype=np.int64)
    text_ranks = np.ones(len(texts), dtype=np.int64)
    rows = max(1, BLOCK // len(texts))
    for start in range(0, len(images), rows):
        block = np.arange(start, min(start + rows, len(images)))
        similarity = images[block] @ texts.T
        wrong = text_image[None, :] != block[:, None]
        ahead = wrong & (similarity >= best_own[block, None] - TIE_TOLERANCE)
        image_ranks[block] += ahead.sum(axis=1)
        ahead = wrong & (similarity >= own[None, :] - TIE_TOLERANCE)
        text_ranks += ahead.sum(axis=0)
    return image_ranks, text_ranks


def recall_at(ranks: Integers, k: int) -> float:
    """R@K: percent of ranks that are at most `k`."""
    return 100.0 * float(np.mean(ranks <= k))


def unit_rows(features: npt.NDArray[Any]) -> Floats:
    """Rows divided by their L2 norm, in double precision."""
    wide = features.astype(np.float64)
    normalised: Floats = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return normalised
