"""Work done by threads while the caller is busy: in order, and never more of it ahead than memory allows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Ahead(Generic[Item, Result]):
    """Iterate over `results(items)`; give back with `release` what each result costs once it is done with.

    Args:
        work: done in a thread; what it raises is raised where its result would have come.
        cost: what a result takes of the budget, such as pixels.
        budget: at most so much is made and not yet released, give or take one result a thread.
        workers: number of threads.
        window: at most so many items are begun before the first of them is asked for.
    """

    def __init__(
        self, work: Callable[[Item], Result], cost: Callable[[Result], int], budget: int, workers: int, window: int
    ) -> None:
        self._work, self._cost, self._budget = work, cost, budget
        self._workers, self._window = workers, window
        self._used, self._next, self._closed = 0, 0, False
        self._changed = threading.Condition()

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """`work(item)` of each item, in order. To be called once."""
        with ThreadPoolExecutor(self._workers) as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for number, item in enumerate(items):
                    waiting.append(pool.submit(self._one, number, item))
                    if len(waiting) == self._window:
                        yield self._take(waiting)
                while waiting:
                    yield self._take(waiting)
            finally:
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()
                for future in waiting:
                    future.cancel()

    def release(self, cost: int) -> None:
        """The caller is done with results of this cost."""
        with self._changed:
            self._used -= cost
            self._changed.notify_all()

    def _one(self, number: int, item: Item) -> Result:
        result = self._work(item)
        cost = self._cost(result)
        with self._changed:
            # The one that the caller waits for always goes through: those behind it may hold the whole budget.
            self._changed.wait_for(
                lambda: self._closed or self._used + cost <= self._budget or number <= self._next,
            )
            self._used += cost
        return result

    def _take(self, waiting: deque[Future[Result]]) -> Result:
        result = waiting.popleft().result()
        with self._changed:
            self._next += 1
            self._changed.notify_all()
        return result
