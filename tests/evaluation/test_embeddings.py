from __future__ import annotations

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import checked_embeddings, cosines


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1.0, 1e30, 1e150])
def test_any_length_of_rows_gives_unit_rows(scale):
    raw = scale * np.random.default_rng(0).normal(size=(6, 9))
    rows = checked_embeddings(raw, "rows")
    expected = (raw / scale) / np.sqrt(((raw / scale) ** 2).sum(1))[:, None]
    np.testing.assert_allclose(rows.exact(), expected, rtol=1e-14)
    np.testing.assert_allclose(rows.unit, expected, rtol=2.0**-22)
    assert rows.unit.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_cosines_in_double_precision_of_any_type(dtype):
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-9, 9, size=(300, 20)).astype(dtype) for _ in range(2))
    a[:, 0] = b[:, 0] = 1
    left, right = rng.integers(300, size=(2, 1000))
    found = cosines(checked_embeddings(a, "a"), checked_embeddings(b, "b"), left, right)
    for k in (0, 1, 127, 128, 999):
        x, y = a[left[k]].astype(float), b[right[k]].astype(float)
        assert found[k] == pytest.approx((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), abs=1e-15)


def test_a_difference_beyond_the_first_rows_is_seen():
    rows = np.ones((600, 3))
    with pytest.raises(DistilvlError, match="same for all 600"):
        checked_embeddings(rows, "rows")
    rows[599, 0] = 1.1
    assert len(checked_embeddings(rows, "rows")) == 600


@pytest.mark.parametrize("value", ["text", True])
def test_only_real_numbers(value):
    with pytest.raises(DistilvlError, match="rows have the type"):
        checked_embeddings(np.full((2, 2), value), "rows")
