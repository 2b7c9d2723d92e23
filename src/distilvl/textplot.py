"""Curves as text: braille letters, each of which is a grid of two by four dots."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
