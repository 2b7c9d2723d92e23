"""Exact retrieval ranks in both directions: one float32 matrix product, close calls decided in double precision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count, environ
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.evaluation.embeddings import Embeddings, Floats, Integers, cosines
from distilvl.evaluation.ground_truth import Groups, RightAnswers

Similarity = npt.NDArray[Any]
"""Cosines of some images with all texts: float32 from a fast product, or float64, which are exact."""

Flags = npt.NDArray[np.bool_]

Counts = tuple[Integers, npt.NDArray[np.uint8]]
"""How many wrong texts are ahead for each image of a tile, and how many wrong images of the tile for each text."""

TIE_TOLERANCE = 1e-9
"""Closer cosines are a tie: in double precision a dot product differs by about 1e-15 from place to place."""

BLOCK = 2**24
"""Similarities held at a time (64 MiB), so that memory does not grow with n x m."""

TILE = 2**19
"""Similarities compared at a time (2 MiB), which stay in a core's cache while they are read several times."""

CLOSE_SHARE = 1 / 32
"""Above this share of close calls it is cheaper to compute a whole block in double precision than call by call."""


def retrieval_ranks(
    images: Embeddings, texts: Embeddings, text_image: Integers, groups: Groups | None = None
) -> tuple[Integers, Integers]:
    """Ranks of the right answers by cosine, 1 for the first place.

    Ties, to within `TIE_TOLERANCE`, count against the model, so one that gives every item the same feature ends last.
    Ranks are those of double precision: a float32 similarity decides only where it is further from the right answer's
    than any float32 product can err (`single_error`); the others, the close calls, are computed again.

    Args:
        images, texts: n and m embeddings.
        text_image: row of each text's image, (m,); every image has at least one text.
        groups: which images and which texts are the same, and so right for each other's pairs; none are by default.

    Returns:
        For each image the rank of its best-placed right text among all, (n,), other right ones not counted as wrong;
        for each text the rank of its best-placed right image, (m,).
    """
    groups = groups or Groups.alone(len(images), len(texts))
    answers = RightAnswers.of(groups.image, groups.text, text_image, np.arange(len(texts)))
    blocks = _slices(0, len(images), max(1, BLOCK // len(texts)))
    best_of_images, best_of_texts = np.full(len(images), -np.inf), np.full(len(texts), -np.inf)
    for block in blocks:  # where nearly all are copies of each other, the right pairs are very many
        rows, right = answers.pairs(block)
        found = cosines(images, texts, rows + block.start, right)
        np.maximum.at(best_of_images, rows + block.start, found)
        np.maximum.at(best_of_texts, right, found)
    error = single_error(images.dim)
    of_images = _Threshold.around(best_of_images[:, None] - TIE_TOLERANCE, error)
    gallery = _Gallery(images, texts, of_images, _Threshold.around(best_of_texts - TIE_TOLERANCE, error))

    image_ranks, text_ranks = np.ones(len(images), dtype=np.int64), np.ones(len(texts), dtype=np.int64)
    buffer = np.empty((blocks[0].stop, len(texts)), dtype=np.float32)
    with ThreadPoolExecutor(threads()) as pool:
        for block in blocks:
            tiles = _slices(block.start, block.stop, min(255, max(1, TILE // len(texts))))  # a byte counts up to 255
            pairs = answers.pairs(block)
            similarity = np.matmul(images.unit[block], texts.unit.T, out=buffer[: block.stop - block.start])
            similarity[pairs] = -np.inf  # right answers are not ahead of anything
            counts = gallery.count_all(tiles, similarity, pool)
            if not counts:
                exact = images.exact(block) @ texts.exact().T
                exact[pairs] = -np.inf
                counts = gallery.count_all(tiles, exact, pool)
            for tile, (before_images, before_texts) in zip(tiles, counts, strict=True):
                image_ranks[tile] += before_images
                text_ranks += before_texts
    return image_ranks, text_ranks


@dataclass(frozen=True, eq=False)
class _Threshold:
    """The similarity from which on a wrong item is ahead, and where a float32 product is sure of it, and sure not."""

    exact: Floats
    above: Similarity
    below: Similarity

    @classmethod
    def around(cls, exact: Floats, error: float) -> _Threshold:
        return cls(exact, (exact + error).astype(np.float32), (exact - error).astype(np.float32))

    def __getitem__(self, rows: slice) -> _Threshold:
        return _Threshold(self.exact[rows], self.above[rows], self.below[rows])


@dataclass(frozen=True, eq=False)
class _Gallery:
    """The inputs, and the thresholds of images (n, 1) and of texts (m,)."""

    images: Embeddings
    texts: Embeddings
    image_threshold: _Threshold
    text_threshold: _Threshold

    def count_all(self, tiles: list[slice], similarity: Similarity, pool: ThreadPoolExecutor) -> list[Counts]:
        """The counts of each tile of a block's similarities, (k, m); empty where too many calls are close."""
        parts = np.split(similarity, [tile.stop - tiles[0].start for tile in tiles[:-1]])
        todo, share = list(zip(tiles, parts, strict=True)), -(-len(tiles) // threads())
        found = pool.map(self._count, [todo[start : start + share] for start in range(0, len(todo), share)])
        counts = [count for of_thread in found for count in of_thread]
        return counts if len(counts) == len(tiles) else []

    def _count(self, tiles: list[tuple[slice, Similarity]]) -> list[Counts]:
        """The counts of some tiles, up to the first with too many close calls; all in the memory of one."""
        counts = []
        ahead, near = (np.empty(tiles[0][1].shape, dtype=np.bool_) for _ in range(2))
        for tile, similarity in tiles:
            scratch = ahead[: len(similarity)], near[: len(similarity)]
            if not self._compare(similarity, tile.start, self.image_threshold[tile], *scratch):
                break
            # Sums of booleans are ten times slower than counts along a row, and than sums of bytes down the columns.
            of_images = np.array([np.count_nonzero(row) for row in scratch[0]])
            if not self._compare(similarity, tile.start, self.text_threshold, *scratch):
                break
            counts.append((of_images, scratch[0].view(np.uint8).sum(0, np.uint8)))
        return counts

    def _compare(self, similarity: Similarity, first: int, threshold: _Threshold, ahead: Flags, near: Flags) -> bool:
        """Tell in `ahead` which similarities of images from row `first` on reach `threshold`; false if many are close.

        `near` is overwritten. Both are (k, m) as the similarities: new memory for each tile takes longer than the work.
        """
        if similarity.dtype == np.float64:
            np.greater_equal(similarity, threshold.exact, out=ahead)
            return True
        np.greater_equal(similarity, threshold.above, out=ahead)
        np.greater_equal(similarity, threshold.below, out=near)
        close = np.count_nonzero(near) - np.count_nonzero(ahead)
        if close > max(64, CLOSE_SHARE * near.size):
            return False
        if close:
            rows, texts = np.nonzero(np.not_equal(near, ahead, out=near))
            exact = cosines(self.images, self.texts, rows + first, texts)
            ahead[rows, texts] = exact >= np.broadcast_to(threshold.exact, near.shape)[rows, texts]
        return True


def single_error(dim: int) -> float:
    """How far a float32 product of two L2-normalised vectors can be from the exact cosine, in any order of summation.

    D u with u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), for vectors of length 1,
    and three roundings for each vector and one for the threshold.
    """
    return 1.05 * (dim + 8) * 2.0**-24


def recall_at(ranks: Integers, k: int) -> float:
    """R@K: percent of ranks that are at most `k`."""
    return 100.0 * float(np.mean(ranks <= k))


def threads() -> int:
    """Threads to use: as many as BLAS is allowed, at most one a core."""
    limit, cores = environ.get("OMP_NUM_THREADS", ""), cpu_count() or 1
    return max(1, min(cores, int(limit))) if limit.isdigit() else cores


def _slices(start: int, stop: int, size: int) -> list[slice]:
    """`start` to `stop` in pieces of `size`, the last perhaps shorter."""
    return [slice(k, min(k + size, stop)) for k in range(start, stop, size)]
