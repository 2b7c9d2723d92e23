from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distilvl.features.index import KeyIndex
from distilvl.features.keys import pack_keys

keys16 = st.binary(min_size=16, max_size=16)


@given(st.lists(st.lists(keys16, max_size=8, unique=True), max_size=4), st.lists(keys16, max_size=5))
def test_find_agrees_with_a_dictionary(shards, strangers):
    expected: dict[bytes, tuple[int, int]] = {}
    for shard, keys in enumerate(shards):
        for row, key in enumerate(keys):
            expected.setdefault(key, (shard, row))
    index = KeyIndex.of_shards([pack_keys(keys) for keys in shards])
    asked = [*expected, *strangers]
    known, places = index.find(pack_keys(asked))
    assert len(index) == len(expected)
    assert known.tolist() == [key in expected for key in asked]
    assert [tuple(place) for place in places.tolist()] == [expected.get(key, (-1, -1)) for key in asked]


@given(st.lists(keys16, min_size=1, max_size=20, unique=True), st.integers(0, 20))
def test_adding_is_the_same_as_opening(keys, cut):
    parts = [pack_keys(keys[:cut]), pack_keys(keys[cut:])]
    grown = KeyIndex()
    for shard, part in enumerate(parts):
        grown.add(part, shard)
    for ours, theirs in zip(grown.find(pack_keys(keys)), KeyIndex.of_shards(parts).find(pack_keys(keys)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_keys_that_end_in_zero_bytes_stay_apart():
    keys = [b"a" + bytes(15), b"a" + bytes(14) + b"\1", bytes(16)]
    _, places = KeyIndex.of_shards([pack_keys(keys)]).find(pack_keys(keys))
    assert places.tolist() == [[0, 0], [0, 1], [0, 2]]
