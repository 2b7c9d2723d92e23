"""How sure a score is: bootstrap intervals, a paired test of two models, and a note where images are few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distilvl.data.listing import split_of
from distilvl.data.records import ALL, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import Floats
from distilvl.evaluation.score import Ranks

MEASURES = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum")
SAMPLES, PERMUTATIONS = 2000, 10_000
FEW = 100  # below so many images a recall moves by more than a percent with one image
_CHUNK = 2**22  # random numbers held at a time

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model A against model B on the same queries."""

    difference: float  # RSUM of A minus RSUM of B
    interval: Interval  # 95 % interval of the difference, paired bootstrap over images
    p_value: float  # two-sided, of the permutation test that A and B are interchangeable
    images: int  # number of images that were resampled; those that share a picture or a caption count once


def intervals(ranks: Ranks, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Interval]:
    """95 % percentile intervals of the recalls and RSUM: `{measure: (low, high)}` for each of `MEASURES`.

    Images are drawn with replacement, each together with its captions, `samples` times; those that share a picture or a
    caption (`Ranks.units`) are drawn together. The galleries stay as they are: the interval covers the choice of
    queries, not that of the gallery's other items (recalls fall as galleries grow), nor another training run or seed.
    `DistilvlError` where there is a single image, or all share a picture or a caption.
    """
    tables = _Tables.of(ranks)
    draws = np.concatenate([tables.measures(weights) for weights in _bootstrap(len(tables.images), samples, seed)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(MEASURES, low, high, strict=True)}


def compare(
    a: Ranks, b: Ranks, *, samples: int = SAMPLES, permutations: int = PERMUTATIONS, seed: int = 0
) -> Comparison:
    """Whether A's RSUM differs from B's, on the same images and captions.

    The p-value is of a paired permutation test: for each image, with its captions and what is drawn with it, the two
    models' results are exchanged or not by a fair coin. It is at least 1 / (`permutations` + 1). The interval is the
    paired bootstrap's, and covers what `intervals` covers. `DistilvlError` for other queries or another ground truth,
    or what `intervals` raises.
    """
    if not np.array_equal(a.text_image, b.text_image) or len(a.image) != len(b.image):
        raise DistilvlError("the two models were scored on different galleries.", "Score both on the same data.")
    if not np.array_equal(a.drawn, b.drawn):
        raise DistilvlError("the two models were scored on different ground truths.", "Score both on the same one.")
    one, other = _Tables.of(a), _Tables.of(b)
    weights = _bootstrap(len(one.images), samples, seed)
    draws = [one.measures(some)[:, -1] - other.measures(some)[:, -1] for some in weights]
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    shares = one.shares() - other.shares()
    p_value = _sign_flip_p(shares, permutations, seed)
    return Comparison(float(shares.sum()), (float(low), float(high)), p_value, len(one.images))


def few_images(
    data: PairDataset, split: str, rsum: Interval | None = None, remedy: str | None = None, scored: int | None = None
) -> str | None:
    """What to say of a score on `split` of `data`, the whole one; none where at least `FEW` images are scored.

    `rsum` is its 95 % interval, if known; `remedy` a sentence on what to do, by default to score all splits, if there
    are others; and `scored`, how many of the split's images are, if not all of them.
    """
    images, total = len(data.split(split)), len(data)
    if (images if scored is None else scored) >= FEW:
        return None
    if remedy is None and images < total:
        remedy = f"--split {ALL} scores all {total:,}, those that a model may have learnt from included."
    if scored is not None and scored != images:
        are = "is" if scored == 1 else "are"
        return _coarse(f"only {scored} of the {images:,} images of {split} {are} scored", rsum, remedy)
    # As readers divide a list that has no splits.
    by_hash = len(data.splits) > 1 and all(record.split == split_of(record.image_id) for record in data)
    chosen = ", chosen by the hash of their names" if images < total and by_hash else ""
    counted = "one image" if images == 1 else f"{images} images"
    return _coarse(f"{split} has only {counted}{chosen}", rsum, remedy)


def few_arrays(images: int, interval: Interval | None = None) -> str | None:
    """The same of `images` rows of features, of which nothing else is known."""
    if images >= FEW:
        return None
    return _coarse(f"only {'one image is' if images == 1 else f'{images} images are'} scored", interval, None)


def _coarse(what: str, interval: Interval | None, remedy: str | None) -> str:
    coarse = "" if interval is None else f": its 95 % interval of RSUM is {interval[0]:.0f} to {interval[1]:.0f}"
    return f"{what}; a score on so few is coarse{coarse}.{'' if remedy is None else f' {remedy}'}"


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of u units that are drawn as a whole: how many queries have a right answer among the first 1, 5 and 10, images
    (u, 3) and captions (u, 3), and how many images (u,) and captions (u,) they hold."""

    image_hits: Floats
    text_hits: Floats
    images: Floats
    captions: Floats

    @classmethod
    def of(cls, ranks: Ranks) -> _Tables:
        units = int(ranks.drawn.max()) + 1
        if units < 2:
            one = "one image" if len(ranks.image) == 1 else "images that all share a picture or a caption"
            raise DistilvlError(f"{one} cannot be resampled.", "Score at least two different images.")
        hits, sizes = [], []
        for found, unit in ((ranks.image, ranks.drawn), (ranks.text, ranks.drawn[ranks.text_image])):
            of_way = np.zeros((units, 3))
            np.add.at(of_way, unit, (found[:, None] <= np.array([1, 5, 10])).astype(np.float64))
            hits.append(of_way)
            sizes.append(np.bincount(unit, minlength=units).astype(np.float64))
        return cls(*hits, *sizes)

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
