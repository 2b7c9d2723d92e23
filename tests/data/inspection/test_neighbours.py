from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.duplicates import near_pairs


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 63), max_size=18)), max_size=25),
    st.sampled_from([0, 1, 4, 8, 15]),
)
def test_the_same_pairs_as_comparing_all_with_all(
    roots: list[int], flips: list[tuple[int, list[int]]], distance: int
) -> None:
    hashes = list(roots)
    for root, bits in flips:
        changed = roots[root % len(roots)]
        for bit in bits:
            changed ^= 1 << bit
        hashes.append(changed)
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= distance
    ]
    assert near_pairs(np.array(hashes, dtype=np.uint64), distance).tolist() == expected


@pytest.mark.parametrize("distance", [-1, 16])
def test_distance_out_of_range(distance: int) -> None:
    with pytest.raises(ValueError):
        near_pairs(np.zeros(2, dtype=np.uint64), distance)
