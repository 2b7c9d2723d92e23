"""Exact retrieval ranks in both directions: one float32 matrix product, close calls decided in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.evaluation.copies import Answers, Groups
from distilvl.evaluation.rows import Floats, Integers, Rows, cosines, in_threads, split, threads

Single = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

TIE_TOLERANCE = 1e-9
"""Cosines closer than this are a tie.

The same dot product comes out of a matrix product with other last bits at another position or block size: in
double precision, about 1e-15 for unit rows. A million times that, identical rows always tie; a hundred times
finer than the rounding of float32 features, different rows practically never do."""

BLOCK = 2**24
"""Similarities held at a time (64 MiB), so that memory does not grow with n x m."""

TILE = 2**18
"""Similarities compared at a time (1 MiB): what is read four times stays in the processor's cache."""

FEW_SHARE = 1 / 64
"""Up to this share of similarities that may be ahead, each is looked at by itself: a good model has hardly any."""

CLOSE_SHARE = 1 / 32
"""Above this share of close calls it is cheaper to compute a whole block in double precision than call by call."""


def retrieval_ranks(
    images: Rows, texts: Rows, text_image: Integers, groups: Groups | None = None
) -> tuple[Integers, Integers]:
    """Ranks of the right answers by cosine, 1 for the first place.

    Ties count against the model: a wrong item as similar as the right one, or less so by at most `TIE_TOLERANCE`, is
    placed before it. So a model that gives every item the same feature ends last, not first. Ranks are those of
    double precision: a float32 similarity decides only where it is further from the right answer's than any
    float32 product can err (`single_error`); all others are computed again.

    Args:
        images: n rows.
        texts: m rows.
        text_image: row of each text's image, (m,); every image has at least one text.
        groups: which images and which texts are the same, and so right for each other's pairs; none are by default.

    Returns:
        Image->text: for each image the rank of the best-placed of its right texts among all, (n,); other right
        texts are not counted as wrong. Text->image: for each text the rank of its best-placed right image, (m,).
    """
    gallery = _Gallery.of(images, texts, text_image, groups or Groups.alone(len(images), len(texts)))
    image_ranks = np.ones(len(images), dtype=np.int64)
    text_ranks = np.ones(len(texts), dtype=np.int64)
    blocks = gallery.blocks
    buffer = np.empty((blocks[0].stop, len(texts)), dtype=np.float32)
    for block in blocks:
        ahead = gallery.ahead_in_single(block, buffer) or gallery.ahead_in_double(block)
        image_ranks[block] += ahead.of_images
        text_ranks += ahead.of_texts
    return image_ranks, text_ranks


def recall_at(ranks: Integers, k: int) -> float:
    """R@K: percent of ranks that are at most `k`."""
    return 100.0 * float(np.mean(ranks <= k))


def single_error(width: int) -> float:
    """How far a float32 product of two unit rows can be from the exact cosine, whatever the order of summation.

    The standard bound for a dot product of D terms, D u with u = 2^-24 (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1; the rows have length 1, so the bound's sum of absolute products is at most 1), and three
    roundings for each row and one for the threshold.
    """
    return 1.05 * (width + 8) * 2.0**-24


@dataclass(frozen=True)
class _Ahead:
    """How many wrong texts are ahead of the best right text of each image of a block, and how many wrong images of that
    block are ahead of each text's best right one."""

    of_images: Integers
    of_texts: Integers


@dataclass(frozen=True)
class _Gallery:
    """The inputs, and the exact cosine of each item's best right answer: of images (n,), of texts (m,)."""

    images: Rows
    texts: Rows
    answers: Answers
    best_of_images: Floats
    best_of_texts: Floats

    @classmethod
    def of(cls, images: Rows, texts: Rows, text_image: Integers, groups: Groups) -> _Gallery:
        answers = Answers.of(groups.image, groups.text, text_image, np.arange(len(texts)))
        gallery = cls(images, texts, answers, np.full(len(images), -np.inf), np.full(len(texts), -np.inf))
        for block in gallery.blocks:  # where nearly all are copies of each other, the right pairs are very many
            rows, right = gallery.right_pairs(block)
            found = cosines(images, texts, rows + block.start, right)
            np.maximum.at(gallery.best_of_images, rows + block.start, found)
            np.maximum.at(gallery.best_of_texts, right, found)
        return gallery

    @property
    def blocks(self) -> list[slice]:
        """The images, so many at a time that a block has at most `BLOCK` similarities."""
        rows = max(1, BLOCK // len(self.texts))
        return [slice(k, min(k + rows, len(self.images))) for k in range(0, len(self.images), rows)]

    def right_pairs(self, block: slice) -> tuple[Integers, Integers]:
        """Row in the block, and text, of all right answers of the block's images."""
        return self.answers.pairs(block)

    def ahead_in_single(self, block: slice, buffer: Single) -> _Ahead | None:
        """The counts for a block of images; none when too many calls are close."""
        similarity = buffer[: block.stop - block.start]
        np.matmul(self.images.unit[block], self.texts.unit.T, out=similarity)
        similarity[self.right_pairs(block)] = -np.inf  # right answers are not ahead of anything
        error = single_error(self.images.width)
        of_images = _Band.around(self.best_of_images[block] - TIE_TOLERANCE, error)
        of_texts = _Band.around(self.best_of_texts - TIE_TOLERANCE, error)
        size = max(1, TILE // len(self.texts))
        tiles = [slice(start, start + size) for start in range(0, len(similarity), size)]

        def count(part: list[slice]) -> _Counts | None:
            counts = _Counts(len(similarity), len(self.texts), size)
            fits = (counts.add(tile, similarity[tile], of_images, of_texts) for tile in part)
            return counts if all(fits) else None

        found = in_threads(count, split(tiles, threads()))
        ahead = _Ahead(np.zeros(len(similarity), dtype=np.int64), np.zeros(len(self.texts), dtype=np.int64))
        for counts in found:
            if counts is None:
                return None
            self._decide(counts, block, ahead)
        return ahead

    def _decide(self, counts: _Counts, block: slice, ahead: _Ahead) -> None:
        """Add the clear counts and, after a look in double precision, the close ones."""
        ahead.of_images[:] += counts.of_images
        ahead.of_texts[:] += counts.of_texts
        rows, texts = counts.close_pairs(counts.close_to_images)
        exact = cosines(self.images, self.texts, rows + block.start, texts)
        is_ahead = exact >= self.best_of_images[rows + block.start] - TIE_TOLERANCE
        ahead.of_images[:] += np.bincount(rows[is_ahead], minlength=len(ahead.of_images))
        rows, texts = counts.close_pairs(counts.close_to_texts)
        exact = cosines(self.images, self.texts, rows + block.start, texts)
        is_ahead = exact >= self.best_of_texts[texts] - TIE_TOLERANCE
        ahead.of_texts[:] += np.bincount(texts[is_ahead], minlength=len(ahead.of_texts))

    def ahead_in_double(self, block: slice) -> _Ahead:
        """The same counts from a product in double precision, a few texts at a time."""
        images = self.images.exact(block)
        ahead = _Ahead(np.zeros(len(images), dtype=np.int64), np.zeros(len(self.texts), dtype=np.int64))
        rows, right = self.right_pairs(block)
        for chunk in self._text_chunks(len(images)):
            similarity = images @ self.texts.exact(chunk).T
            here = (right >= chunk.start) & (right < chunk.stop)
            similarity[rows[here], right[here] - chunk.start] = -np.inf
            ahead.of_images[:] += np.count_nonzero(
                similarity >= self.best_of_images[block, None] - TIE_TOLERANCE, axis=1
            )
            ahead.of_texts[chunk] += np.count_nonzero(similarity >= self.best_of_texts[chunk] - TIE_TOLERANCE, axis=0)
        return ahead

    def _text_chunks(self, rows: int) -> Iterator[slice]:
        size = max(1, BLOCK // (4 * rows))
        return (slice(k, min(k + size, len(self.texts))) for k in range(0, len(self.texts), size))


@dataclass(frozen=True)
class _Band:
    """Thresholds between which float32 cannot decide: at `high` and above is ahead, below `low` is not."""

    low: Single
    high: Single

    @classmethod
    def around(cls, threshold: Floats, error: float) -> _Band:
        low, high = (threshold - error).astype(np.float32), (threshold + error).astype(np.float32)
        return cls(np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf)))


class _Counts:
    """One thread's counts over its tiles of a block, and its close calls as places `row * m + text` of the block."""

    def __init__(self, rows: int, texts: int, tile_rows: int) -> None:
        self.of_images = np.zeros(rows, dtype=np.int64)
        self.of_texts = np.zeros(texts, dtype=np.int64)
        self.close_to_images: list[Integers] = []
        self.close_to_texts: list[Integers] = []
        self._ahead, self._near = (np.empty((tile_rows, texts), dtype=np.bool_) for _ in range(2))

    def add(self, tile: slice, similarity: Single, of_images: _Band, of_texts: _Band) -> bool:
        """Count a tile (rows, m); false when too many of its calls are close."""
        near, offset = self._near[: len(similarity)], tile.start * similarity.shape[1]

        np.greater_equal(similarity, of_images.low[tile, None], out=near)
        if (places := _if_few(near)) is not None:
            rows, high = places // similarity.shape[1], of_images.high[tile]
            ahead = similarity.reshape(-1)[places] >= high[rows]
            self.of_images[tile] = np.bincount(rows[ahead], minlength=len(similarity))
            fits = self._note(self.close_to_images, places[~ahead], offset, near.size)
        else:
            many = np.greater_equal(similarity, of_images.high[tile, None], out=self._ahead[: len(similarity)])
            self.of_images[tile] = [np.count_nonzero(row) for row in many]  # an axis=1 sum is ten times slower
            fits = self._note(self.close_to_images, _differing(many, near), offset, near.size)

        np.greater_equal(similarity, of_texts.low, out=near)
        if (places := _if_few(near)) is not None:
            texts = places % similarity.shape[1]
            ahead = similarity.reshape(-1)[places] >= of_texts.high[texts]
            np.add.at(self.of_texts, texts[ahead], 1)
            return self._note(self.close_to_texts, places[~ahead], offset, near.size) and fits
        many = np.greater_equal(similarity, of_texts.high, out=self._ahead[: len(similarity)])
        for start in range(0, len(many), 255):  # as many ones as fit into a byte
            self.of_texts += np.add.reduce(many[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
        return self._note(self.close_to_texts, _differing(many, near), offset, near.size) and fits

    @staticmethod
    def _note(notes: list[Integers], close: Integers, offset: int, size: int) -> bool:
        if len(close):
            notes.append(close + offset)
        return len(close) <= max(64, CLOSE_SHARE * size)

    def close_pairs(self, notes: list[Integers]) -> tuple[Integers, Integers]:
        """Rows in the block and texts of close calls."""
        if not notes:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        rows, texts = np.divmod(np.concatenate(notes), len(self.of_texts))
        return rows, texts


def _if_few(flags: Bools) -> Integers | None:
    """Flat places of the true ones, so that only they are looked at again; none when they are many."""
    return np.flatnonzero(flags) if np.count_nonzero(flags) <= FEW_SHARE * flags.size else None


def _differing(ahead: Bools, near: Bools) -> Integers:
    """Flat places that are near and not clearly ahead; overwrites `near`."""
    return np.flatnonzero(np.not_equal(ahead, near, out=near))
