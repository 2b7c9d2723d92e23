"""The prefetcher: threads that prepare the next items while the caller works, never more than memory allows."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Prefetcher(Generic[Item, Result]):
    """Iterate over `results(items)`; give back with `release` what each result costs once it is done with.

    `work` is done in `workers` threads; what it raises is raised where its result would have come. At most `window`
    items are begun before the first of them is asked for. Of the `cost` of results, such as pixels, at most `budget` is
    made and not yet released, give or take one result a thread.
    """

    work: Callable[[Item], Result]
    workers: int
    window: int
    cost: Callable[[Result], int] = lambda _: 0
    budget: int = 0

    def __post_init__(self) -> None:
        self._used, self._next, self._closed = 0, 0, False
        self._changed = threading.Condition()

    def results(self, items: Iterable[Item]) -> Generator[Result, None, None]:
        """`work(item)` of each item, in order. To be called once."""
        with ThreadPoolExecutor(self.workers, thread_name_prefix="prefetch") as pool:
            waiting: deque[Future[Result]] = deque()
            try:
                for number, item in enumerate(items):
                    waiting.append(pool.submit(self._one, number, item))
                    if len(waiting) == self.window:
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
        result = self.work(item)
        cost = self.cost(result)
        with self._changed:
            # The one that the caller waits for always goes through: those behind it may hold the whole budget.
            self._changed.wait_for(lambda: self._closed or self._used + cost <= self.budget or number <= self._next)
            self._used += cost
        return result

    def _take(self, waiting: deque[Future[Result]]) -> Result:
        result = waiting.popleft().result()
        with self._changed:
            self._next += 1
            self._changed.notify_all()
        return result


def prefetched(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, window: int
) -> Generator[Result, None, None]:
    """`work(item)` of each item, in order, by a `Prefetcher` for results whose memory needs no budget."""
    return Prefetcher(work, workers=workers, window=window).results(items)


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """`items`, of which the next one is made in a thread while this one is used; never more than one ahead."""
    made: Generator[list[Item], None, None] = prefetched(
        lambda _: list(islice(items, 1)), repeat(None), workers=1, window=2
    )
    with closing(made):
        for found in made:
            if not found:
                return
            yield found[0]
