"""Copies of one picture as one hit, so that they do not fill the first places.

Copies are files of the same bytes, which share their id. Nothing else that an index stores tells equal pixels from
nearly equal ones: two pictures that differ in a small spot have the same size, and may have the same thumbnail and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from distilvl.search.filters import one_of
from distilvl.search.records import Hit
from distilvl.search.table import PhotoTable

_MORE = 16  # rows beyond those asked for, so that a few copies cost no second look
_GROWTH = 4
_ENOUGH = 10_000
"""Rows; a model that gives one row for everything makes all pictures look like copies, and is not followed further."""

# A picture that was encoded once more differs by the rounding of the batches.
_SAME_SCORE = 1e-5


def nearest_pictures(
    table: PhotoTable, vector: npt.NDArray[np.float32], conditions: Sequence[str], top: int, without: str | None = None
) -> list[Hit]:
    """The `top` different pictures that meet all `conditions` and are most similar to a unit row (D,), best first.

    Each look leaves out what the ones before have found, and goes through more rows: a thousand copies of one picture
    cost one further look, and pictures without copies none. With `without`, the picture of that id and its copies are
    left out.
    """
    files: dict[str, list[Hit]] = {}
    amount, looks = top + _MORE, 0
    while True:
        others = [f"NOT ({one_of('id', files)})"] if files else []
        found = table.nearest(vector, [*conditions, *others], amount)
        looks += 1
        for hit in found:
            files.setdefault(hit.id, []).append(hit)
        pictures = sorted(
            (_first(hits) for key, hits in files.items() if key != without), key=lambda hit: (-hit.score, hit.path)
        )
        best = pictures[:top]
        if len(found) < amount or (len(best) == top and (amount > _ENOUGH or _is_whole(best[-1], found))):
            break
        amount *= _GROWTH
    # Of one look all copies are there; later ones left out those of pictures that were known.
    paths = {key: [hit.path for hit in hits] for key, hits in files.items()}
    if looks > 1:
        paths |= table.paths([hit.id for hit in best], conditions)
    return [_one(hit, paths[hit.id]) for hit in best]


def _is_whole(hit: Hit, found: list[Hit]) -> bool:
    """Whether no copy of a hit can be among the rows that were not looked at; copies have equal scores."""
    return hit.score - found[-1].score > _SAME_SCORE


def _first(hits: list[Hit]) -> Hit:
    """The first of one picture's files, by path, with the best of their scores."""
    return replace(min(hits, key=lambda hit: hit.path), score=max(hit.score for hit in hits))


def _one(hit: Hit, paths: list[str]) -> Hit:
    every = sorted(paths)
    return replace(hit, path=every[0], paths=tuple(every))
