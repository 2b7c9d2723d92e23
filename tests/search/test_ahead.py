"""Work ahead: in order, within the budget, and stopped cleanly."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.io.prefetch import Ahead


def _identity(value: int) -> int:
    return value


@given(
    st.lists(st.integers(0, 20), max_size=40),
    st.integers(1, 4),
    st.integers(1, 10),
    st.integers(0, 30),
    st.integers(1, 9),
)
def test_all_results_come_in_order_whatever_the_limits(
    items: list[int], workers: int, window: int, budget: int, batch: int
) -> None:
    """Costs may exceed the budget; a caller that holds a batch before it releases must not be stuck."""
    ahead = Ahead(_identity, _identity, budget, workers, window)
    got, held = [], []
    for value in ahead.results(items):
        got.append(value)
        held.append(value)
        if len(held) >= batch:
            ahead.release(sum(held))
            held = []
    assert got == items


def test_no_more_than_the_budget_is_made_ahead() -> None:
    made, lock = [0], threading.Lock()

    def work(value: int) -> int:
        with lock:
            made[0] += 1
        return value

    ahead = Ahead(work, lambda _: 10, budget=30, workers=2, window=50)
    results = ahead.results(range(50))
    for seen in range(1, 51):
        next(results)
        time.sleep(0.002)
        with lock:
            # Three within the budget, and one that each thread holds in its hands.
            assert made[0] <= seen + 3 + 2
        ahead.release(10)


def test_threads_work_while_the_caller_does() -> None:
    def work(value: int) -> int:
        time.sleep(0.02)
        return value

    started = time.monotonic()
    ahead = Ahead(work, lambda _: 0, budget=1, workers=4, window=16)
    for _ in ahead.results(range(32)):
        time.sleep(0.02)
    assert time.monotonic() - started < 32 * 0.04 * 0.9


def test_an_error_comes_in_its_place_and_ends_the_work() -> None:
    def work(value: int) -> int:
        if value == 3:
            raise ValueError("three")
        return value

    ahead = Ahead(work, lambda _: 1, budget=1, workers=3, window=8)
    results = ahead.results(range(100))
    for expected in range(3):
        assert next(results) == expected
        ahead.release(1)
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_a_caller_that_stops_early_leaves_no_thread_waiting() -> None:
    ahead = Ahead(_identity, lambda _: 100, budget=1, workers=4, window=8)
    results = ahead.results(range(100))
    next(results)
    before = threading.active_count()
    results.close()
    assert threading.active_count() < before
