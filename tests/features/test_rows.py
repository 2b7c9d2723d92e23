from __future__ import annotations

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.features.manifest import Manifest
from distilvl.features.shards import storable_rows

UNIT = Manifest(teacher="t", revision="r", dim=3)
RAW = Manifest(teacher="t", revision="r", dim=3, normalized=False)


def test_rows_get_unit_length():
    rows = storable_rows(np.array([[3.0, 0, 4], [0, 1e-8, 0]]), 2, UNIT, "t")
    np.testing.assert_array_equal(rows, np.array([[0.6, 0, 0.8], [0, 1, 0]], dtype=np.float16))


def test_rows_stay_as_they_are_when_not_normalized():
    np.testing.assert_array_equal(storable_rows(np.array([[3.0, 0, 4]]), 1, RAW, "t"), [[3, 0, 4]])


@pytest.mark.parametrize(
    ("features", "manifest", "words"),
    [
        (np.ones((2, 4)), UNIT, "width 3, but the features have width 4"),
        (np.ones((1, 3)), UNIT, r"shape \(1, 3\), not \(2, 3\)"),
        (np.ones(6), UNIT, r"shape \(6,\)"),
        (np.ones((2, 3), dtype=int), UNIT, "type int64"),
        (np.array([[1.0, 1, 1], [1, np.nan, 1]]), UNIT, "not finite for 'second' .1 of 2"),
        (np.array([[1.0, 1, 1], [1, np.inf, 1]]), UNIT, "not finite for 'second'"),
        (np.array([[1.0, 1, 1], [0, 0, 0]]), UNIT, "all zero for 'second'"),
        (np.array([[1.0, 1, 1], [1e6, 0, 0]]), RAW, "not finite for 'second'"),
    ],
)
def test_unfit_rows(features: np.ndarray, manifest: Manifest, words: str):
    with pytest.raises(DistilvlError, match=words):
        storable_rows(features, 2, manifest, "the teacher", ["first", "second"])
