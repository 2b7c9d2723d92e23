from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distilvl.features.shards import KeyIndex
from distilvl.io.hashes import pack_keys

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


@given(st.lists(st.lists(st.sampled_from([bytes([k]) * 16 for k in range(60)]), max_size=9), max_size=25))
def test_adding_many_shards_that_overlap_is_the_same_as_opening(shards):
    packed = [pack_keys(keys) for keys in shards]
    grown, opened = KeyIndex(), KeyIndex.of_shards(packed)
    for shard, keys in enumerate(packed):
        grown.add(keys, shard)
    asked = pack_keys([bytes([k]) * 16 for k in range(60)])
    assert len(grown) == len(opened) == len({key for keys in shards for key in keys})
    for ours, theirs in zip(grown.find(asked), opened.find(asked), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_runs_stay_few():
    index = KeyIndex()
    for shard in range(300):
        index.add(pack_keys([shard.to_bytes(16, "big")]), shard)
    assert len(index) == 300
    assert len(index._runs) <= 9


def test_keys_that_end_in_zero_bytes_stay_apart():
    keys = [b"a" + bytes(15), b"a" + bytes(14) + b"\1", bytes(16)]
    _, places = KeyIndex.of_shards([pack_keys(keys)]).find(pack_keys(keys))
    assert places.tolist() == [[0, 0], [0, 1], [0, 2]]
