"""How long it takes: for people a live bar with the time left, or plain lines in a pipe, on stderr; and a clock."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL_S = 10.0


class Ticker(Protocol):
    """Told of work done; `note` is a short text shown beside the bar."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more units as done."""


class _Bar:
    def __init__(self, bar: Progress, description: str, total: int, done: int) -> None:
        self._bar, self._task = bar, bar.add_task(description, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        if note:
            self._bar.update(self._task, note=note)
        self._bar.advance(self._task, count)


class _Lines:
    def __init__(self, description: str, total: int, done: int) -> None:
        self._description, self._total, self._done, self._before = description, total, done, done
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last < PLAIN_INTERVAL_S and self._done < self._total:
            return
        self._last, elapsed = now, now - self._start
        left = elapsed / max(self._done - self._before, 1) * (self._total - self._done)
        tail = f"  {note}" if note else ""
        line = f"{self._description}: {self._done}/{self._total}, {elapsed:.0f} s, {left:.0f} s left{tail}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class Silence:
    """A ticker that shows nothing."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Do nothing."""


_silent = False


def silence() -> None:
    """Show no progress in this process from now on: another one speaks for both."""
    global _silent
    _silent = True


def silenced() -> bool:
    """Whether `silence` was called."""
    return _silent


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Ticker]:
    """A ticker for `total` units of work, named `description`; `done` of them were done by an earlier call."""
    if _silent:
        yield Silence()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(description, total, done)
        return
    text, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    with Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note, console=console) as bar:
        yield _Bar(bar, description, total, done)


def time_ms(call: Callable[[], object]) -> float:
    """Milliseconds that `call` takes, with the work that it leaves to a GPU."""
    _synchronise()
    started = time.perf_counter()
    call()
    _synchronise()
    return 1e3 * (time.perf_counter() - started)


def median_ms(encode: Callable[[Any], object], batches: Sequence[Any]) -> float:
    """Median milliseconds of `encode(batch)` over all batches but the first, which warms up."""
    return statistics.median([time_ms(partial(encode, batch)) for batch in batches][1:])


def _synchronise() -> None:
    # Where torch was not imported, no GPU works for it.
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
