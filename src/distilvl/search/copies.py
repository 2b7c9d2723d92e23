"""Copies of one picture as one hit, so that they do not fill the first places.

Copies are files of the same bytes, which share their id; and files of the same pixels, such as a photograph whose EXIF
was edited: their rows, sizes and thumbnails are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from distilvl.search.filters import one_of
from distilvl.search.records import Hit
from distilvl.search.table import PhotoTable

_MORE = 16  # rows beyond those asked for, so that a few copies cost no second look
_GROWTH = 4
_ENOUGH = 10_000
"""Rows; a model that gives one row for everything makes all pictures look like copies, and is not followed further."""

# Rows of the same pixels differ by the rounding of the batches in which they were encoded.
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
        pictures = [
            group
            for group in _joined(table, [_first(hits) for hits in files.values()])
            if all(hit.id != without for hit in group)
        ]
        best = pictures[:top]
        if len(found) < amount or (len(best) == top and (amount > _ENOUGH or _is_whole(best[-1], found))):
            break
        amount *= _GROWTH
    # Of one look all copies are there; later ones left out those of pictures that were known.
    paths = {key: [hit.path for hit in hits] for key, hits in files.items()}
    if looks > 1:
        paths |= table.paths([hit.id for group in best for hit in group], conditions)
    return [_one(group, paths) for group in best]


def _is_whole(group: list[Hit], found: list[Hit]) -> bool:
    """Whether no copy of a group can be among the rows that were not looked at; copies have equal scores."""
    return group[-1].score - found[-1].score > _SAME_SCORE


def _joined(table: PhotoTable, hits: list[Hit]) -> list[list[Hit]]:
    """Hits of different ids, best first, those of the same pixels together."""
    ordered = sorted(hits, key=lambda hit: (-hit.score, hit.path))
    close = [one.score - other.score <= _SAME_SCORE for one, other in pairwise(ordered)]
    doubtful = {hit.id for k, is_close in enumerate(close) if is_close for hit in ordered[k : k + 2]}
    thumbnails = {key: photo.thumbnail for key, photo in table.with_ids(sorted(doubtful)).items()}
    groups: list[list[Hit]] = []
    known: dict[tuple[object, ...], list[Hit]] = {}
    for hit in ordered:
        pixels = (hit.width, hit.height, thumbnails[hit.id]) if thumbnails.get(hit.id) else (hit.id,)
        group = known.get(pixels)
        if group is not None and group[-1].score - hit.score <= _SAME_SCORE:
            group.append(hit)
        else:
            known[pixels] = group = [hit]
            groups.append(group)
    return groups


def _first(hits: list[Hit]) -> Hit:
    return min(hits, key=lambda hit: hit.path)


def _one(group: list[Hit], paths: dict[str, list[str]]) -> Hit:
    """The hit of a whole group: that of its first file, by path, with the group's best score."""
    every = sorted(path for hit in group for path in paths[hit.id])
    first = min(group, key=lambda hit: hit.path)
    return replace(first, path=every[0], score=group[0].score, paths=tuple(every))
