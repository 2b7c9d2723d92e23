"""What a server's answer is worth: the rows that can be used, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.teachers.http.dialects import Dialect

Row = npt.NDArray[np.float32]


class BadReplyError(Exception):
    """A reply of which no row can be used; the message says why, as part of a sentence."""


def usable_rows(reply: Any, count: int, dim: int, dialect: Dialect) -> dict[int, Row]:
    """The good rows of `reply` by the position of their item; what is lacking has to be asked again.

    Args:
        reply: parsed JSON.
        count: number of items that were asked; positions are in [0, count).
        dim: width a row must have.
        dialect: where to find things.

    Raises:
        BadReplyError: no good row at all, or answers that cannot be matched with their items.
    """
    answers = _answers(reply, dialect)
    positions = _positions(answers, count, dialect)
    rows: dict[int, Row] = {}
    reason = "it holds no rows"
    for position, answer in zip(positions, answers, strict=True):
        vector = answer.get(dialect.vector) if dialect.vector is not None else answer
        row, fault = _row(vector, dim)
        if row is None:
            reason = fault
        else:
            rows[position] = row
    if not rows:
        raise BadReplyError(reason)
    return rows


def _answers(reply: Any, dialect: Dialect) -> list[Any]:
    for step in dialect.rows_at:
        reply = reply.get(step) if isinstance(reply, Mapping) else None
    if not isinstance(reply, list):
        raise BadReplyError(f"it has no list of rows at {'.'.join(dialect.rows_at)!r}")
    if dialect.vector is not None and not all(isinstance(answer, Mapping) for answer in reply):
        raise BadReplyError(f"its rows lack {dialect.vector!r}")
    return reply


def _positions(answers: list[Any], count: int, dialect: Dialect) -> list[int]:
    """Which item each answer belongs to: by its index, or by order where all items are there."""
    indices = [answer.get(dialect.index) for answer in answers] if dialect.index is not None else []
    if not indices or all(index is None for index in indices):
        if len(answers) != count:
            raise BadReplyError(f"it holds {len(answers)} rows for {count} items, and does not say whose they are")
        return list(range(count))
    if any(type(index) is not int or not 0 <= index < count for index in indices):
        raise BadReplyError(f"its rows have other indices than 0 to {count - 1}")
    if len(set(indices)) != len(indices):
        raise BadReplyError("it holds two rows with the same index")
    return indices


def _row(vector: Any, dim: int) -> tuple[Row | None, str]:
    if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
        return None, "a row is not a list of numbers"
    if len(vector) != dim:
        return None, f"a row has width {len(vector)}, not {dim}"
    try:
        row = np.array(vector, dtype=np.float64)
    except OverflowError:
        return None, "a row holds a number with more digits than any float"
    if not np.isfinite(row).all():
        return None, "a row holds numbers that are not finite"
    # Of normal size in float32, in which rows are kept.
    largest = float(np.abs(row).max())
    if largest < 1e-30:
        return None, "a row is all zero"
    if largest > 1e30:
        return None, "a row holds numbers that are too large"
    return row.astype(np.float32), ""
