from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.students.token_rows import TokenRows

ROWS = st.lists(st.lists(st.integers(0, 250_000), max_size=9), max_size=12)


@given(ROWS, st.integers(1, 5))
def test_rows_come_back_however_they_were_cut_into_parts(rows: list[list[int]], part: int) -> None:
    packed = TokenRows(rows[start : start + part] for start in range(0, len(rows), part))
    assert [packed[row].tolist() for row in range(len(packed))] == rows
    assert packed.lengths.tolist() == [len(row) for row in rows]
    assert packed.ids.tolist() == [token for row in rows for token in row]


def test_a_row_beyond_the_last_is_an_error() -> None:
    packed = TokenRows([[[1, 2], [3]]])
    assert packed[np.int64(-1)].tolist() == [3]
    with pytest.raises(IndexError):
        packed[2]
