"""All pairs of 64-bit hashes that differ in few bits, without comparing all with all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

BITS = 64
MAX_DISTANCE = 15
"""With more bits than this the bands get so short that nearly all hashes are compared."""


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.int64]:
    """Pairs (i, j), i < j, of hashes that differ in at most `distance` bits; each once, sorted, shape (k, 2).

    Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): the bits are cut into distance + 1 bands. Two hashes
    within that distance agree in at least one band entirely, so only hashes with an equal band are compared. With
    n hashes spread evenly that is about (d + 1) n^2 / 2^(64 / (d + 1)) / 2 comparisons.

    Args:
        hashes: (n,), best all different: equal ones all share their buckets.
        distance: 0 to 15.

    Raises:
        ValueError: a distance beyond that range.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance is {distance}, not 0 to {MAX_DISTANCE}")
    edges = np.linspace(0, BITS, distance + 2).round().astype(int).tolist()
    found = [np.empty((0, 2), dtype=np.int64)]
    for low, high in itertools.pairwise(edges):
        for left, right in _agreeing(hashes, low, high):
            near = bit_counts(hashes[left] ^ hashes[right]) <= distance
            if near.any():
                found.append(np.stack([left[near], right[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def bit_counts(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Number of ones in each value. (`np.bitwise_count` came with NumPy 2.0 only.)"""
    u = np.uint64
    values = values - ((values >> u(1)) & u(0x5555555555555555))
    values = (values & u(0x3333333333333333)) + ((values >> u(2)) & u(0x3333333333333333))
    values = (values + (values >> u(4))) & u(0x0F0F0F0F0F0F0F0F)
    return ((values * u(0x0101010101010101)) >> u(56)).astype(np.int64)


def _agreeing(
    hashes: npt.NDArray[np.uint64], low: int, high: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of rows that agree in bits `low` to `high`, some at a time, the smaller row first.

    In the order of the band's value, rows that agree stand together; each is paired with the one that stands 1, 2, 3,
    ... places after it, for all rows at once, until no two at that distance agree.
    """
    band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    order = np.argsort(band, kind="stable")
    band = band[order]
    first = np.arange(len(band) - 1)
    for step in range(1, len(band)):
        first = first[: np.searchsorted(first, len(band) - step)]
        first = first[band[first] == band[first + step]]
        if not len(first):
            return
        yield order[first], order[first + step]
