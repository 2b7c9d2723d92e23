"""Queries with any number of right answers: ranks of all of them, R-Precision, mAP@R, recall at K."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distilvl.evaluation.ranks import TIE_TOLERANCE
from distilvl.evaluation.rows import Floats, Integers, Rows

_BLOCK = 2**22
"""Similarities held at a time (32 MiB)."""


@dataclass(frozen=True, slots=True)
class Precision:
    """R-Precision and mAP@R of one direction, percent, as ECCV Caption (Chun et al., ECCV 2022) defines them.

    Attributes:
        r_precision: mean over queries of the share of right answers among the first R, R being their number.
        map_at_r: mean over queries of 1/R times the sum, over the places k = 1..R that hold a right answer, of the
            share of right answers among the first k.
    """

    r_precision: float
    map_at_r: float


@dataclass(frozen=True, slots=True, eq=False)
class PositiveRanks:
    """Where the right answers of each query stand.

    Attributes:
        ranks: one ascending array a query, 1 for the first place.
        wanted: R of each query, (q,): how many right answers there are, those that the gallery lacks included.
    """

    ranks: list[Integers]
    wanted: Integers

    def recall_at(self, k: int) -> float:
        """Percent of queries with a right answer among the first `k`."""
        return 100.0 * float(np.mean([bool(len(ranks)) and bool(ranks[0] <= k) for ranks in self.ranks]))

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
    queries: Rows, items: Rows, positives: Sequence[Integers], wanted: Integers | None = None
) -> PositiveRanks:
    """Ranks of all right answers by cosine, in double precision; ties count against the model.

    A wrong item as similar as a right one, or less so by at most `TIE_TOLERANCE`, is placed before it.

    Args:
        queries: q rows.
        items: the gallery.
        positives: for each query the different rows of its right answers in `items`.
        wanted: R of each query, (q,); the number of its `positives` unless given.
    """
    gallery = items.exact(slice(None))
    rows = max(1, _BLOCK // len(items))
    ranks: list[Integers] = []
    for start in range(0, len(queries), rows):
        similarity = queries.exact(slice(start, start + rows)) @ gallery.T
        ranks += [_ranks(row, right) for row, right in zip(similarity, positives[start : start + rows], strict=True)]
    counts = np.array([len(right) for right in positives])
    return PositiveRanks(ranks, counts if wanted is None else wanted)


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
