"""Images that are the same, or nearly: groups of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from distilvl.data.inspection.neighbours import near_pairs

SAME_COLOURS = 24.0
"""Largest mean difference, of 255, between the thumbnails of near duplicates. Among the 24,496,500 pairs of 7,000
photographs of Flickr8k, the 21 that differ in at most 10 bits of their hash and show different things are all above."""

_BLOCK = 16384  # thumbnails compared at once, some 10 MB


def equal_groups(keys: Sequence[bytes]) -> list[list[int]]:
    """Rows with equal keys, each group ascending, groups by their first row; only groups of two or more."""
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def near_groups(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], keys: Sequence[bytes], distance: int
) -> list[list[int]]:
    """Rows that show nearly the same picture though their files differ, ascending, groups by their first row.

    Two pictures are near when their hashes differ in at most `distance` bits and their thumbnails by at most
    `SAME_COLOURS`; a group is what such pairs connect. Identical files count once, by their first row.

    Args:
        hashes: `perceptual_hash` of each row, (n,).
        thumbnails: of each row, (n, 8, 8, 3).
        keys: content keys, n of them.
        distance: bits, 0 to 15.
    """
    first = list({key: row for row, key in reversed(list(enumerate(keys)))}.values())
    rows = np.asarray(sorted(first), dtype=np.int64)
    # Pictures with the very same hash (blank pages, say) would be compared all with all below; leaders stand for them.
    leaders, links = _leaders(hashes, thumbnails, rows)
    pairs = leaders[near_pairs(hashes[leaders], distance)]
    pairs = pairs[_alike(thumbnails, pairs[:, 0], pairs[:, 1])]
    return _connected(len(keys), [*links, *map(tuple, pairs.tolist())])


def _leaders(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], list[tuple[int, int]]]:
    """One row for each hash and look, and which rows it stands for."""
    order = rows[np.argsort(hashes[rows], kind="stable")]
    leaders: list[int] = []
    links: list[tuple[int, int]] = []
    for left in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
        while len(left):
            leader = int(left[0])
            same = _alike(thumbnails, np.full(len(left), leader), left)
            leaders.append(leader)
            links += [(leader, int(row)) for row in left[same] if row != leader]
            left = left[~same]
    return np.asarray(sorted(leaders), dtype=np.int64), links


def _alike(
    thumbnails: npt.NDArray[np.uint8], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    alike = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = np.abs(thumbnails[left[part]].astype(np.int16) - thumbnails[right[part]])
        alike[part] = difference.mean(axis=(1, 2, 3)) <= SAME_COLOURS
    return alike


def _connected(count: int, pairs: Iterable[tuple[int, ...]]) -> list[list[int]]:
    ends = np.asarray(list(pairs), dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, labels = connected_components(links, directed=False)
    return equal_groups([label.tobytes() for label in labels])
