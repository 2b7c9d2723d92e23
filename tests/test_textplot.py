from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.training.console import Curve, draw

FINITE = st.floats(-1e6, 1e6)


def _dots(lines: list[str]) -> set[tuple[int, int]]:
    """Rows and columns of dots that are set."""
    places = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1))
    return {
        (4 * y + row, 2 * x + column)
        for y, line in enumerate(lines)
        for x, letter in enumerate(line)
        for bit, (row, column) in enumerate(places)
        if ord(letter) - 0x2800 & 1 << bit
    }


@given(st.lists(FINITE, min_size=2, max_size=40), st.integers(1, 30), st.integers(1, 4))
def test_a_curve_fills_its_box_without_holes(points: list[float], width: int, height: int) -> None:
    lines = draw(points, width, height)
    assert [len(line) for line in lines] == [width] * height
    dots = _dots(lines)
    assert {column for _, column in dots} == set(range(2 * width))
    for column in range(1, 2 * width):
        here, before = ([row for row, x in dots if x == where] for where in (column, column - 1))
        assert min(here) - max(before) <= 1
        assert min(before) - max(here) <= 1
        assert max(here) - min(here) == len(here) - 1


def test_up_is_up_and_the_ends_are_the_ends() -> None:
    dots = _dots(draw([0.0, 1.0], 4, 2))
    assert {(7, 0), (0, 7)} <= dots
    assert (0, 0) not in dots


def test_nothing_and_a_constant() -> None:
    assert _dots(draw([], 3, 2)) == set()
    assert {row for row, _ in _dots(draw([5.0, 5.0], 3, 2))} == {3}
    assert {row for row, _ in _dots(draw([5.0], 3, 1))} == {1}


@given(st.lists(FINITE, max_size=500), st.sampled_from([4, 16, 256]))
def test_a_curve_keeps_few_points_with_the_right_mean(values: list[float], limit: int) -> None:
    curve = Curve(limit)
    for value in values:
        curve.add(value)
    assert len(curve.points) < limit
    group = max(1, 2 ** math.ceil(math.log2((len(values) + 1) / limit))) if len(values) >= limit else 1
    whole = len(curve.points) * group
    assert whole <= len(values) < whole + group
    if whole:
        assert sum(curve.points) * group == pytest.approx(math.fsum(values[:whole]), abs=1e-3, rel=1e-9)


def test_what_is_not_finite_is_shown_and_not_drawn() -> None:
    curve = Curve()
    for value in (1.0, math.nan, math.inf, 3.0, math.nan):
        curve.add(value)
    assert curve.points == [1.0, 3.0]
    assert curve.last is not None
    assert math.isnan(curve.last)
