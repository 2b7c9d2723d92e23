"""How sure a score is: bootstrap intervals over images, and a paired comparison of two models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distilvl.errors import DistilvlError
from distilvl.evaluation.rows import Floats, Integers
from distilvl.evaluation.score import Ranks

MEASURES = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum")
SAMPLES = 2000
PERMUTATIONS = 10_000
_CHUNK = 2**22
"""Random numbers held at a time."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model A against model B on the same queries.

    Attributes:
        difference: RSUM of A minus RSUM of B.
        interval: 95 % interval of the difference, paired bootstrap over images.
        p_value: two-sided, of the permutation test that A and B are interchangeable.
        images: number of images that were resampled; those that share a picture or a caption count once.
    """

    difference: float
    interval: Interval
    p_value: float
    images: int


def intervals(ranks: Ranks, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Interval]:
    """95 % percentile intervals of the recalls and RSUM: `{measure: (low, high)}` for each of `MEASURES`.

    Images are drawn with replacement, each together with its captions, `samples` times; images that share a picture or
    a caption (`Ranks.units`) are drawn together, as their results are no independent observations. Ranks were computed
    once and the galleries stay as they are: the interval covers the choice of queries. It does not cover the choice of
    the gallery's other items (recalls fall as galleries grow), nor another training run or seed.

    Raises:
        DistilvlError: a single image, or all share a picture or a caption.
    """
    tables = _Tables.of(ranks)
    draws = np.concatenate([tables.measures(weights) for weights in _bootstrap(tables.units, samples, seed)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(MEASURES, low, high, strict=True)}


def compare(
    a: Ranks, b: Ranks, *, samples: int = SAMPLES, permutations: int = PERMUTATIONS, seed: int = 0
) -> Comparison:
    """Whether A's RSUM differs from B's, on the same images and captions.

    The p-value is of a paired permutation test: for each image, with its captions and what is drawn with it, the two
    models' results are exchanged or not by a fair coin. If the models were equally good, all these outcomes would be
    equally likely, so the test needs no assumption on how differences are distributed, unlike a t-test, and keeps its
    level for few images, unlike a bootstrap. Its smallest p-value is 1 / (`permutations` + 1). The interval is the
    paired bootstrap's, and covers what `intervals` covers.

    Raises:
        DistilvlError: other queries or another ground truth, or what `intervals` raises.
    """
    if not np.array_equal(a.text_image, b.text_image) or len(a.image) != len(b.image):
        raise DistilvlError("the two models were scored on different galleries.", "Score both on the same data.")
    if not np.array_equal(a.drawn, b.drawn):
        raise DistilvlError("the two models were scored on different ground truths.", "Score both on the same one.")
    of_a, of_b = _Tables.of(a), _Tables.of(b)
    draws = [of_a.measures(weights)[:, -1] - of_b.measures(weights)[:, -1]
             for weights in _bootstrap(of_a.units, samples, seed)]  # fmt: skip
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    shares = of_a.shares() - of_b.shares()
    difference = float(shares.sum())
    return Comparison(difference, (float(low), float(high)), _sign_flip_p(shares, permutations, seed), of_a.units)


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of u units that are drawn as a whole: hits at 1, 5 and 10 of images (u, 3) and of captions (u, 3), and how many
    images (u,) and captions (u,) they hold."""

    image_hits: Floats
    text_hits: Floats
    images: Floats
    captions: Floats

    @classmethod
    def of(cls, ranks: Ranks) -> _Tables:
        of_images = ranks.drawn
        of_texts = of_images[ranks.text_image]
        units = int(of_images.max()) + 1
        if units < 2:
            one = "one image" if len(ranks.image) == 1 else "images that all share a picture or a caption"
            raise DistilvlError(f"{one} cannot be resampled.", "Score at least two different images.")
        return cls(
            _hits(ranks.image, of_images, units),
            _hits(ranks.text, of_texts, units),
            np.bincount(of_images, minlength=units).astype(np.float64),
            np.bincount(of_texts, minlength=units).astype(np.float64),
        )

    @property
    def units(self) -> int:
        return len(self.captions)

    def measures(self, weights: Floats) -> Floats:
        """`MEASURES` of samples in which unit i occurs `weights[s, i]` times: (s, 7), percent."""
        image = weights @ self.image_hits / (weights @ self.images)[:, None]
        text = weights @ self.text_hits / (weights @ self.captions)[:, None]
        recalls = 100.0 * np.concatenate([image, text], axis=1)
        return np.concatenate([recalls, recalls.sum(axis=1, keepdims=True)], axis=1)

    def shares(self) -> Floats:
        """What each unit adds to RSUM, (u,)."""
        of_images, of_texts = self.image_hits.sum(axis=1), self.text_hits.sum(axis=1)
        shares: Floats = of_images / self.images.sum() + of_texts / self.captions.sum()
        return 100.0 * shares


def _hits(ranks: Integers, unit: Integers, units: int) -> Floats:
    """How many queries of each unit have a right answer among the first 1, 5 and 10: (u, 3)."""
    hits = np.zeros((units, 3))
    np.add.at(hits, unit, (ranks[:, None] <= np.array([1, 5, 10])).astype(np.float64))
    return hits


def _bootstrap(units: int, samples: int, seed: int) -> Iterator[Floats]:
    """How often each unit is drawn, (some samples, u) at a time; every row adds up to u."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // units)
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _sign_flip_p(shares: Floats, permutations: int, seed: int) -> float:
    """Share of random exchanges whose difference is as far from 0 as the one found, which counts as one of them."""
    rng = np.random.default_rng(seed)
    found = abs(float(shares.sum()))
    reached, size = 0, max(1, _CHUNK // len(shares))
    for start in range(0, permutations, size):
        signs = 2.0 * rng.integers(2, size=(min(size, permutations - start), len(shares))) - 1.0
        reached += int(np.count_nonzero(np.abs(signs @ shares) >= found - 1e-9))
    return (1 + reached) / (1 + permutations)
