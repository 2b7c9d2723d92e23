"""What the terminal shows of a run: losses, rates, scores, time left; plain lines in a pipe. Always on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from distilvl.io.progress import Ticker, progress, silenced
from distilvl.training.run_folder import Line


@contextmanager
def training_view(total: int, done: int, epochs: int, console: Console | None = None) -> Iterator[RunView]:
    """Live curves of a run of `total` steps, `done` of them behind it; what is printed or logged appears above them."""
    console = console or Console(stderr=True)
    if silenced() or not console.is_terminal or console.is_dumb_terminal:
        with progress("training", total, done) as ticker:
            yield RunView(ticker)
        return
    with _Readings(console) as live, _logging_follows_stderr():
        yield RunView(_Bar(live, total, done), epochs)


class RunView:
    """A listener of the metrics log that shows its latest readings as a note of `ticker` beside the steps done.

    With `epochs` the long note of a terminal, without it the short one of a pipe.
    """

    def __init__(self, ticker: Ticker, epochs: int | None = None) -> None:
        self._ticker, self._epochs, self._note = ticker, epochs, ""
        self._best: tuple[float, int] | None = None
        self._last: Line = {}

    def advance(self, count: int = 1) -> None:
        """Count `count` more steps as done."""
        self._ticker.advance(count, self._note)

    def begin(self, kept: Sequence[Line], _dropped: Sequence[Line]) -> None:
        """As `Listener.begin`."""
        for line in kept:
            self.line(line)

    def line(self, line: Line) -> None:
        """As `Listener.line`."""
        if "val" in line:
            rsum = float(line["val"]["rsum"])
            if self._best is None or rsum > self._best[0]:
                self._best = rsum, line["epoch"] + 1
        if "losses" in line:
            self._last = line
        if self._last:
            self._note = self._short() if self._epochs is None else self._long()
        if self._last and self._epochs is not None:
            self._ticker.advance(0, self._note)

    def end(self, _failed: bool) -> None:
        """As `Listener.end`."""

    def _short(self) -> str:
        losses = " ".join(f"{name} {value:.3f}" for name, value in self._last["losses"].items())
        best = "" if self._best is None else f"  best val RSUM {self._best[0]:.1f}"
        return f"epoch {self._last['epoch'] + 1}  {losses}  {self._last['pairs_per_s']:.0f} pairs/s{best}"

    def _long(self) -> str:
        last = self._last
        losses = "  ".join(f"{name} {value:.4g}" for name, value in last["losses"].items())
        weights = "  ".join(f"{name} {value:.3g}" for name, value in last.get("weight", {}).items())
        rates = " ".join(f"{name} {value:.2g}" for name, value in last.get("lr", {}).items())
        best = "none so far" if self._best is None else f"best {self._best[0]:.1f} after epoch {self._best[1]}"
        head = f"epoch {last['epoch'] + 1} of {self._epochs}  ·  loss {last['loss']:.4g}"
        lines = [
            f"{head}  ·  {last['pairs_per_s']:.0f} pairs/s  ·  lr {rates}",
            f"raw losses  {losses}",
            f"weights  {weights}" if weights else "",
            f"val RSUM  {best}",
        ]
        return "\n".join(line for line in lines if line)


class _Readings(Progress):
    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("steps"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console, expand=True, refresh_per_second=4,
        )  # fmt: skip

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield Text(task.fields["note"])
        yield self.make_tasks_table(self.tasks)


class _Bar:
    def __init__(self, live: Progress, total: int, done: int) -> None:
        note = "the first readings are on their way"
        self._live, self._task = live, live.add_task("training", total=total, completed=done, note=note)

    def advance(self, count: int = 1, note: str = "") -> None:
        if note:
            self._live.update(self._task, note=note)
        self._live.advance(self._task, count)


@contextmanager
def _logging_follows_stderr() -> Iterator[None]:
    """Point the log handlers that hold the old stderr or stdout at what stands there now; they would tear the view."""
    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if hasattr(one, "handlers"))]
    handlers = {id(handler): handler for one in loggers for handler in getattr(one, "handlers", ())}
    # stderr and stdout behind what rich has put in their place.
    real: list[Any] = [getattr(stream, "rich_proxied_file", stream) for stream in (sys.stderr, sys.stdout)]
    # Exactly the class that writes to a stream: its subclass for files is left alone.
    streams = [handler for handler in handlers.values() if type(handler) is logging.StreamHandler]
    moved = [(handler, handler.setStream(sys.stderr)) for handler in streams if handler.stream in real]
    try:
        yield
    finally:
        for handler, stream in moved:
            if stream is not None:
                handler.setStream(stream)
