"""A training run as seen from the terminal: curves, rates and time left; plain lines in a pipe. Always on stderr."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from distilvl.io.progress import Ticker, progress, silenced
from distilvl.training.run_folder import Line, Listener

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800


class Curve:
    """Points that come one by one, of which about `limit` at most are kept: full, neighbours are averaged.

    What is not a finite number is remembered as `last`, and not drawn.

    Args:
        limit: even, at least 4.
    """

    def __init__(self, limit: int = 256) -> None:
        self.last: float | None = None
        self._limit, self._group = limit, 1
        self._means: list[float] = []
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """One more point."""
        self.last = value
        if not math.isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self._group:
            return
        self._means.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._means) == self._limit:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._group *= 2

    @property
    def points(self) -> list[float]:
        """Evenly spaced; each the mean of as many values."""
        return self._means


def draw(points: Sequence[float], width: int, height: int) -> list[str]:
    """The points from the left edge to the right, joined, their lowest at the bottom and their highest at the top.

    Args:
        points: finite; none gives blank lines, equal ones a line half way up.
        width: letters, at least 1.
        height: lines, at least 1.

    Returns:
        `height` lines of `width` letters.
    """
    cells = [[_BLANK] * width for _ in range(height)]
    rows = _dot_rows(points, 2 * width, 4 * height)
    before = rows[0] if rows else 0
    for x, row in enumerate(rows):
        # Down or up from the column before, so that a steep curve has no holes.
        reach = range(min(row, before + (row > before)), max(row, before - (row < before)) + 1)
        for y in reach:
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        before = row
    return ["".join(map(chr, line)) for line in cells]


def _dot_rows(points: Sequence[float], columns: int, rows: int) -> list[int]:
    """For each column of dots, which row the curve is in, 0 at the top."""
    if not points:
        return []
    low, high = min(points), max(points)
    if high == low:
        return [(rows - 1) // 2] * columns
    found = []
    for x in range(columns):
        place = x * (len(points) - 1) / max(columns - 1, 1)
        left = min(int(place), max(len(points) - 2, 0))
        right = min(left + 1, len(points) - 1)
        value = points[left] + (place - left) * (points[right] - points[left])
        found.append(round((high - value) / (high - low) * (rows - 1)))
    return found


REDRAWS_PER_S = 4
COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_NAME, _RANGE, _GAP = 9, 8, 2
_FURNITURE = 6
"""Lines of the view that are no curves of losses: titles, RSUM, bar."""


class RunView(Listener, Protocol):
    """Told of each step that is done and of each line of the metrics log."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more steps as done."""


@contextmanager
def training_view(total: int, done: int, epochs: int, console: Console | None = None) -> Iterator[RunView]:
    """A view of a run of `total` steps and `epochs` epochs, `done` steps of which lie behind it.

    While it stands on a terminal, what is printed or logged to stderr or stdout appears above it.
    """
    console = console or Console(stderr=True)
    if silenced() or not console.is_terminal or console.is_dumb_terminal:
        with progress("training", total, done) as ticker:
            yield PlainView(ticker)
        return
    view = LiveView(total, done, epochs)
    with Live(view, console=console, refresh_per_second=REDRAWS_PER_S), _logging_follows_stderr():
        yield view


class PlainView:
    """The readings as a note beside what `progress` shows."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._best: float | None = None
        self._note = ""

    def advance(self, count: int = 1) -> None:
        """As `RunView.advance`."""
        self._ticker.advance(count, self._note)

    def begin(self, kept: Sequence[Line], _dropped: Sequence[Line]) -> None:
        """As `Listener.begin`."""
        for line in kept:
            self.line(line)

    def line(self, line: Line) -> None:
        """As `Listener.line`."""
        if "val" in line:
            self._best = max(line["val"]["rsum"], -1.0 if self._best is None else self._best)
        if "losses" in line:
            losses = " ".join(f"{name} {value:.3f}" for name, value in line["losses"].items())
            best = "" if self._best is None else f"  best val RSUM {self._best:.1f}"
            self._note = f"epoch {line['epoch'] + 1}  {losses}  {line['pairs_per_s']:.0f} pairs/s{best}"

    def end(self, _failed: bool) -> None:
        """As `Listener.end`."""


class LiveView:
    """A rich renderable of at least 60 columns: raw losses beside the balancer's weights, RSUM, and a bar."""

    def __init__(self, total: int, done: int, epochs: int) -> None:
        self._epochs = epochs
        self._losses: dict[str, Curve] = {}
        self._weights: dict[str, Curve] = {}
        self._rsum = Curve()
        self._best: tuple[float, int] | None = None
        self._last: Line = {}
        self._bar = Progress(
            TextColumn("steps"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), expand=True,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=total, completed=done)

    def advance(self, count: int = 1) -> None:
        """As `RunView.advance`."""
        self._bar.advance(self._task, count)

    def begin(self, kept: Sequence[Line], _dropped: Sequence[Line]) -> None:
        """As `Listener.begin`."""
        for line in kept:
            self.line(line)

    def line(self, line: Line) -> None:
        """As `Listener.line`."""
        if "val" in line:
            rsum = float(line["val"]["rsum"])
            self._rsum.add(rsum)
            if self._best is None or rsum > self._best[0]:
                self._best = rsum, line["epoch"] + 1
        if "losses" in line:
            _add(self._losses, line["losses"])
            _add(self._weights, line.get("weight", {}))
            self._last = line

    def end(self, _failed: bool) -> None:
        """As `Listener.end`."""

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        width = options.max_width
        if not self._losses:
            yield Group(Text("the first readings are on their way", style="dim"), self._bar)
            return
        yield Group(self._title(), self._curves(width, console.height), self._scores(width), self._bar)

    def _title(self) -> Text:
        last = self._last
        rates = " ".join(f"{name} {value:.2g}" for name, value in last.get("lr", {}).items())
        parts = [
            f"epoch {last['epoch'] + 1} of {self._epochs}", f"loss {_number(last['loss'])}",
            f"{last['pairs_per_s']:.0f} pairs/s", f"lr {rates}",
        ]  # fmt: skip
        return Text("  ·  ".join(parts), no_wrap=True, overflow="ellipsis", style="bold")

    def _curves(self, width: int, screen: int) -> Table:
        """One band a loss: its curve, and its weight's beside it."""
        height = max(1, min(3, (screen - _FURNITURE) // len(self._losses)))
        half = (width - _GAP) // 2
        table = Table.grid(padding=0, pad_edge=False)
        table.add_row(_headed("raw losses", half), " " * _GAP, _headed("weights w of the balancer", half))
        for k, (name, losses) in enumerate(self._losses.items()):
            colour = COLOURS[k % len(COLOURS)]
            weights = self._weights.get(name)
            right = _band(name, weights, half, height, colour) if weights else Text("")
            table.add_row(_band(name, losses, half, height, colour), "", right)
        return table

    def _scores(self, width: int) -> Table:
        table = Table.grid(padding=0, pad_edge=False)
        if self._best is None or self._rsum.last is None:
            table.add_row(Text("val RSUM after each validation, none so far", style="dim"))
            return table
        half = (width - _GAP) // 2
        best = f"validation, of 600\nbest {self._best[0]:.1f} after epoch {self._best[1]}"
        table.add_row(_band("RSUM", self._rsum, half, 2, "bold"), " " * _GAP, Text(best))
        return table


def _band(name: str, curve: Curve, width: int, height: int, colour: str) -> Text:
    """Name and last value, highest and lowest value, curve: `height` lines of `width` letters."""
    points = curve.points
    labels = [name, "" if curve.last is None else _number(curve.last)]
    ends = [_number(max(points)), *[""] * (height - 2), _number(min(points))] if points else []
    if height == 1:
        labels, ends = [f"{name} {labels[1]}"], ends[:0]
    room = max(1, width - _NAME - _RANGE - 2)
    out = Text(no_wrap=True)
    for k, line in enumerate(draw(points, room, height)):
        label = labels[k] if k < len(labels) else ""
        end = ends[k] if k < len(ends) else ""
        out.append(f"{label:<{_NAME}.{_NAME}} ", style=f"bold {colour}" if k == 0 else "bold")
        out.append(f"{end:>{_RANGE}} ", style="dim")
        out.append(line, style=colour)
        out.append("\n" if k + 1 < height else "")
    return out


def _headed(text: str, width: int) -> Text:
    return Text(f"{text[:width]:<{width}}", style="dim underline")


def _add(curves: dict[str, Curve], values: Mapping[str, float]) -> None:
    for name, value in values.items():
        curves.setdefault(name, Curve()).add(value)


def _number(value: float) -> str:
    """At most eight letters: `0.1974`, `16.54`, `207.4`, `1.2e+06`."""
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 or value == 0 or value != value else f"{value:.1e}"


@contextmanager
def _logging_follows_stderr() -> Iterator[None]:
    """Point the log handlers that hold the old stderr or stdout at what stands there now; they would tear the view."""
    loggers = [logging.root, *(one for one in logging.root.manager.loggerDict.values() if hasattr(one, "handlers"))]
    handlers = {id(handler): handler for one in loggers for handler in getattr(one, "handlers", ())}
    moved = []
    for handler in handlers.values():
        # Exactly the class that writes to a stream: its subclass for files is left alone.
        if type(handler) is logging.StreamHandler and handler.stream in _real_streams():
            moved.append((handler, handler.setStream(sys.stderr)))
    try:
        yield
    finally:
        for handler, stream in moved:
            if stream is not None:
                handler.setStream(stream)


def _real_streams() -> list[Any]:
    """stderr and stdout behind what rich has put in their place."""
    return [getattr(stream, "rich_proxied_file", stream) for stream in (sys.stderr, sys.stdout)]
