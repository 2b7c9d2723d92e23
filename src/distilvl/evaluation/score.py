"""Retrieval scores from features: R@1, R@5, R@10 both ways, RSUM, median ranks, R-Precision and mAP@R."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import Embeddings, Floats, Integers, checked_embeddings, checked_gallery, cosines
from distilvl.evaluation.ground_truth import Groups
from distilvl.evaluation.ranks import BLOCK, TIE_TOLERANCE, recall_at, retrieval_ranks


@dataclass(frozen=True, slots=True)
class Recalls:
    """R@1, R@5 and R@10 of one direction, percent."""

    r1: float
    r5: float
    r10: float


@dataclass(frozen=True, slots=True, repr=False)
class Score:
    """Retrieval quality on a gallery; `images` and `texts` are its size, of all galleries together of a protocol.

    `median_rank`: image->text and text->image, the median over queries of the rank of the best-placed right answer, 1
    being the best; none where the ranks are not known.
    """

    image_to_text: Recalls
    text_to_image: Recalls
    images: int
    texts: int
    median_rank: tuple[float, float] | None = None

    @property
    def rsum(self) -> float:
        """RSUM: the sum of the six recalls, 0 to 600."""
        return sum(way.r1 + way.r5 + way.r10 for way in (self.image_to_text, self.text_to_image))

    def as_dict(self) -> dict[str, Any]:
        """`{"image_to_text": {"r1", "r5", "r10"}, "text_to_image": {...}, "rsum"}`, for JSON."""
        i2t, t2i = asdict(self.image_to_text), asdict(self.text_to_image)
        return {"image_to_text": i2t, "text_to_image": t2i, "rsum": self.rsum}

    def __repr__(self) -> str:
        return f"Score({format_score(self)}; {self.images} images, {self.texts} texts)"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ranks:
    """What scores are made of, and what resampling draws from."""

    image: Integers  # for each image the rank of its best-placed right text, (n,), 1 for the first place
    text: Integers  # for each text the rank of its best-placed right image, (m,)
    text_image: Integers  # row of each text's image, (m,)
    units: Integers | None = None  # images with one number are drawn together, (n,), from 0; none: each by itself

    @property
    def drawn(self) -> Integers:
        """`units`, or a number of its own for each image."""
        return np.arange(len(self.image)) if self.units is None else self.units

    def __repr__(self) -> str:
        return f"Ranks({format_score(score_ranks(self))}; {len(self.image)} images, {len(self.text)} texts)"


def score(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike, groups: Groups | None = None
) -> Score:
    """Score features on image-text retrieval by cosine similarity; ties count against the model.

    Args:
        image_features: (n, D), one row an image; any scale, they are L2-normalised here.
        text_features: (m, D).
        text_image: (m,), for each text the row of its image, in [0, n).
        groups: which images and which texts are copies of each other (`Groups.by_content`), and so right for each
            other's pairs; without them only the pairs themselves are right.

    Raises:
        DistilvlError: shapes that do not fit, NaN or infinity, a zero row, features that are all the same,
            a row of `text_image` out of range, an image without texts.
    """
    return score_ranks(rank_gallery(image_features, text_features, text_image, groups))


def rank_gallery(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike, groups: Groups | None = None
) -> Ranks:
    """The ranks behind `score`; the same arguments and errors."""
    images, texts, owner = checked_gallery(image_features, text_features, text_image)
    if groups is None:
        return Ranks(*retrieval_ranks(images, texts, owner), owner)
    groups = groups.checked(len(images), len(texts))
    return Ranks(*retrieval_ranks(images, texts, owner, groups), owner, groups.units(owner))


def score_ranks(ranks: Ranks) -> Score:
    """The score that ranks amount to."""
    i2t, t2i = (Recalls(*(recall_at(way, k) for k in (1, 5, 10))) for way in (ranks.image, ranks.text))
    medians = float(np.median(ranks.image)), float(np.median(ranks.text))
    return Score(i2t, t2i, images=len(ranks.image), texts=len(ranks.text), median_rank=medians)


def retention(student_rsum: float, teacher_rsum: float) -> float | None:
    """Student RSUM over teacher RSUM; none where the teacher finds nothing at all."""
    return student_rsum / teacher_rsum if teacher_rsum else None


def format_score(score: Score) -> str:
    """One line: `i2t 35.6 64.8 77.3 / t2i 26.6 57.8 71.0 / RSUM 333.1`."""
    i2t, t2i = (f"{way.r1:.1f} {way.r5:.1f} {way.r10:.1f}" for way in (score.image_to_text, score.text_to_image))
    return f"i2t {i2t} / t2i {t2i} / RSUM {score.rsum:.1f}"


def hard_negative_accuracy(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, negative_features: npt.ArrayLike
) -> float:
    """Percent of triples (image, true caption, caption wrong in one detail) that are told apart.

    A triple counts when the true caption is strictly more similar to the image than the wrong one. Features are (n, D)
    each, row i of all three is triple i. `DistilvlError` for shapes that do not fit, NaN or infinity, a zero row.
    """
    given = {"image": image_features, "text": text_features, "hard-negative": negative_features}
    # Triples may well be of one image, or have one wrong caption.
    images, texts, negatives = (
        checked_embeddings(features, f"{what} features", different=False) for what, features in given.items()
    )
    if not images.raw.shape == texts.raw.shape == negatives.raw.shape:
        shapes = f"{images.raw.shape}, {texts.raw.shape} and {negatives.raw.shape}"
        remedy = "Give one image, one caption and one hard negative a row, all of one dimension."
        raise DistilvlError(f"triples have shapes {shapes}.", remedy)
    row = np.arange(len(images))
    gap = cosines(images, texts, row, row) - cosines(images, negatives, row, row)
    return 100.0 * float(np.mean(gap > TIE_TOLERANCE))


@dataclass(frozen=True, slots=True)
class Precision:
    """R-Precision and mAP@R of one direction, percent, as ECCV Caption (Chun et al., ECCV 2022) defines them."""

    r_precision: float  # mean over queries of the share of right answers among the first R, R being their number
    # Mean over queries of 1/R times the sum, over the places k = 1..R that hold a right answer, of the share of right
    # answers among the first k.
    map_at_r: float


@dataclass(frozen=True, slots=True, eq=False)
class PositiveRanks:
    """Where all the right answers of each query stand."""

    ranks: list[Integers]  # one ascending array a query, 1 for the first place
    wanted: Integers  # R of each query, (q,): how many right answers there are, in the gallery or not

    @classmethod
    def joined(cls, parts: Iterable[PositiveRanks]) -> PositiveRanks:
        """Those of several galleries."""
        ranks, wanted = zip(*((part.ranks, part.wanted) for part in parts), strict=True)
        return cls([one for part in ranks for one in part], np.concatenate(wanted))

    def recalls(self) -> Recalls:
        """Percent of queries with a right answer among the first 1, 5 and 10."""
        best = np.array([ranks[0] if len(ranks) else np.inf for ranks in self.ranks])
        return Recalls(*(100.0 * float(np.mean(best <= k)) for k in (1, 5, 10)))

    def precision(self) -> Precision:
        """R-Precision and mAP@R."""
        lengths = np.array([len(ranks) for ranks in self.ranks])
        query = np.repeat(np.arange(len(lengths)), lengths)
        ranks = np.concatenate(self.ranks)
        of_query = 1 + np.arange(len(ranks)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        hit = ranks <= self.wanted[query]  # the first ones of each query
        shares, sums = (np.bincount(query[hit], weights=weights, minlength=len(lengths)) / self.wanted
                        for weights in (None, of_query[hit] / ranks[hit]))  # fmt: skip
        return Precision(100.0 * float(np.mean(shares)), 100.0 * float(np.mean(sums)))


def positive_ranks(
    queries: Embeddings, items: Embeddings, positives: Sequence[Integers], wanted: Integers | None = None
) -> PositiveRanks:
    """Ranks of all right answers by cosine, in double precision; ties count against the model.

    `positives` are for each of the q queries the different rows of its right answers in `items`; `wanted` is R of each
    query, (q,), the number of its positives unless given.
    """
    gallery = items.exact()
    rows = max(1, BLOCK // (4 * len(items)))
    ranks: list[Integers] = []
    for start in range(0, len(queries), rows):
        similarity = queries.exact(slice(start, start + rows)) @ gallery.T
        ranks += [_ranks(row, right) for row, right in zip(similarity, positives[start : start + rows], strict=True)]
    return PositiveRanks(ranks, np.array([len(right) for right in positives]) if wanted is None else wanted)


def _ranks(similarity: Floats, right: Integers) -> Integers:
    """Ranks of the items `right` in a row of similarities, ascending."""
    if not len(right):
        return right.astype(np.int64)
    own = np.sort(similarity[right])[::-1]
    similarity[right] = -np.inf
    # Only wrong items that reach the lowest right one matter; mostly, they are few.
    rivals = np.sort(similarity[similarity >= own[-1] - TIE_TOLERANCE])
    ahead = len(rivals) - np.searchsorted(rivals, own - TIE_TOLERANCE, side="left")
    return np.asarray(ahead + np.arange(1, len(own) + 1), dtype=np.int64)
