"""Work ahead: in order, within the budget, and stopped cleanly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.io.prefetch import Prefetcher, one_ahead


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
    prefetcher = Prefetcher(_identity, workers=workers, window=window, cost=_identity, budget=budget)
    got, held = [], []
    for value in prefetcher.results(items):
        got.append(value)
        held.append(value)
        if len(held) >= batch:
            prefetcher.release(sum(held))
            held = []
    assert got == items


def test_no_more_than_the_budget_is_made_ahead() -> None:
    made, lock = [0], threading.Lock()

    def work(value: int) -> int:
        with lock:
            made[0] += 1
        return value

    prefetcher = Prefetcher(work, workers=2, window=50, cost=lambda _: 10, budget=30)
    results = prefetcher.results(range(50))
    for seen in range(1, 51):
        next(results)
        time.sleep(0.002)
        with lock:
            # Three within the budget, and one that each thread holds in its hands.
            assert made[0] <= seen + 3 + 2
        prefetcher.release(10)


def test_threads_work_while_the_caller_does() -> None:
    def work(value: int) -> int:
        time.sleep(0.02)
        return value

    started = time.monotonic()
    prefetcher = Prefetcher(work, workers=4, window=16)
    for _ in prefetcher.results(range(32)):
        time.sleep(0.02)
    assert time.monotonic() - started < 32 * 0.04 * 0.9


def test_an_error_comes_in_its_place_and_ends_the_work() -> None:
    def work(value: int) -> int:
        if value == 3:
            raise ValueError("three")
        return value

    prefetcher = Prefetcher(work, workers=3, window=8, cost=lambda _: 1, budget=1)
    results = prefetcher.results(range(100))
    for expected in range(3):
        assert next(results) == expected
        prefetcher.release(1)
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_a_caller_that_stops_early_leaves_no_thread_waiting() -> None:
    prefetcher = Prefetcher(_identity, workers=4, window=8, cost=lambda _: 100, budget=1)
    results = prefetcher.results(range(100))
    next(results)
    before = threading.active_count()
    results.close()
    assert threading.active_count() < before


def test_the_next_one_and_no_other_is_made_while_this_one_is_used():
    made: list[int] = []
    reached = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            reached[number].set()
            yield number
        reached[4].set()

    for number in one_ahead(items()):
        assert reached[number + 1].wait(30)
        assert made == list(range(min(number + 2, 4)))
    assert made == [0, 1, 2, 3]


def test_what_goes_wrong_while_making_reaches_the_user_after_the_items_before():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second one")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="the second one"):
        next(ahead)


def test_whoever_stops_early_leaves_no_thread_behind():
    ahead = one_ahead(iter(range(10)))
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
