"""RSUM of teacher, students and baselines as bars: the headline at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from distilvl.reports.charts import Chart, Point, Series
from distilvl.reports.results import ResultRow

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 40
COLOURS = 8
"""Series styles of the style sheet, `c0` to `c7`; each differs in colour and in dashes."""
_SMOOTHED_FROM = 40


@dataclass(frozen=True)
class Scale:
    """From values to pixels.

    Attributes:
        low, high: values at the ends.
        start, end: pixels at the ends.
        log: logarithmic; then `low` is positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        low, high = self._map(self.low), self._map(self.high)
        return self.start + (self._map(value) - low) / (high - low) * (self.end - self.start)

    def _map(self, value: float) -> float:
        return math.log10(value) if self.log else value


def line_chart(chart: Chart, name: str) -> Markup:
    """The chart; `name` makes its ids unique in the page."""
    points = [point for series in chart.series for point in series.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = _apart(0.0 if chart.x == "epochs" else min(xs), max(xs))
    x = Scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y = _vertical(min(ys), max(ys), chart.log)
    parts = [open_svg(f"{chart.title} over {chart.x}", chart.text, name, WIDTH, HEIGHT)]
    parts += _grid(x, y, chart)
    for index, series in enumerate(chart.series):
        parts += _series(series, _style(chart, index), x, y)
    return Markup("").join(parts) + Markup("</svg>")


def legend(chart: Chart) -> list[tuple[Markup, str]]:
    """A sample of each line, and its name."""
    samples = []
    for index, series in enumerate(chart.series):
        mark = Markup('<circle cx="14" cy="5" r="3.2"/>') if series.dots else Markup("")
        kind = "level" if series.level else "mean"
        style = _style(chart, index)
        sample = Markup(
            '<svg class="sample" viewBox="0 0 28 10" width="28" height="10" aria-hidden="true"><g class="{}">'
            '<path class="{}" d="M1 5H27"/>{}</g></svg>'
        )
        samples.append((sample.format(style, kind, mark), series.name))
    return samples


def _style(chart: Chart, index: int) -> str:
    """A level takes the colour of the line it belongs to, if names tell (`teacher R@1` or `teacher of R@1`, `R@1`)."""
    series = chart.series[index]
    if series.level:
        owner = next((other for other in chart.series if series.name in _names_of_teacher(other)), None)
        return "reference" if owner is None else f"c{owner.slot % COLOURS}"
    return f"c{series.slot % COLOURS}"


def _names_of_teacher(line: Series) -> tuple[str, str]:
    return f"teacher {line.name}", f"teacher of {line.name}"


def _vertical(low: float, high: float, log: bool) -> Scale:
    bottom, top = HEIGHT - BOTTOM, TOP
    if log:
        # Whole powers of ten at the ends make ticks that can be read.
        return Scale(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9), bottom, top, log=True)
    low, high = _apart(low, high)
    # A scale that nearly reaches zero had better show it.
    if 0 < low < 0.4 * high:
        low = 0.0
    step = nice_step(high - low)
    return Scale(math.floor(low / step) * step, math.ceil(high / step) * step, bottom, top)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two different ends, also around a single value."""
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    room = abs(low) / 10 or 1.0
    return low - room, high + room


def nice_step(span: float, most: int = 5) -> float:
    """1, 2 or 5 times a power of ten, so that `span` has at most about `most` steps."""
    raw = span / most
    power = 10 ** math.floor(math.log10(raw))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999))


def ticks(scale: Scale) -> list[float]:
    """Values for an axis."""
    if scale.log:
        first, last = round(math.log10(scale.low)), round(math.log10(scale.high))
        stride = max(1, math.ceil((last - first) / 5))
        return [10.0**power for power in range(first, last + 1, stride)]
    step = nice_step(scale.high - scale.low)
    first, last = math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's label: `0.05`, `400`, `1e-5`."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:.6g}"


def open_svg(title: str, text: str, name: str, width: int, height: int) -> Markup:
    """The start of a picture with its title and description; the caller closes it."""
    head = Markup(
        '<svg class="plot" role="img" viewBox="0 0 {} {}" aria-labelledby="{}-t {}-d">'
        '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
    )
    return head.format(width, height, name, name, name, title, name, text)


def _grid(x: Scale, y: Scale, chart: Chart) -> list[Markup]:
    parts = []
    for value in ticks(y):
        line = Markup('<path class="grid" d="M{} {:.1f}H{}"/><text class="tick" x="{}" y="{:.1f}">{}</text>')
        parts.append(line.format(LEFT, y(value), WIDTH - RIGHT, LEFT - 6, y(value) + 4, number(value)))
    for value in ticks(x):
        text = Markup('<path class="grid" d="M{:.1f} {}v4"/><text class="tick x" x="{:.1f}" y="{}">{}</text>')
        parts.append(text.format(x(value), HEIGHT - BOTTOM, x(value), HEIGHT - BOTTOM + 18, number(value)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(Markup('<text class="axis" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 5, chart.x))
    centre = (TOP + HEIGHT - BOTTOM) / 2
    label = chart.y + (", log" if y.log else "")
    upright = Markup('<text class="axis" transform="translate(11 {}) rotate(-90)">{}</text>')
    return [*parts, upright.format(centre, label)]


def _series(series: Series, style: str, x: Scale, y: Scale) -> list[Markup]:
    if series.level:  # from edge to edge, however far the runs came
        line = Markup('<g class="{}"><path class="level" d="M{} {:.1f}H{}"/></g>')
        return [line.format(style, LEFT, y(series.points[0][1]), WIDTH - RIGHT)]
    noisy = len(series.points) >= _SMOOTHED_FROM and not series.dots and not series.exact
    parts = [Markup('<g class="{}">').format(style)]
    if noisy:
        parts.append(Markup('<path class="raw" d="{}"/>').format(path(series.points, x, y)))
    parts.append(
        Markup('<path class="mean" d="{}"/>').format(path(smooth(series.points) if noisy else series.points, x, y))
    )
    if series.dots or len(series.points) == 1:
        for px, py in series.points:
            dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2"><title>{}: {} at {:.4g}</title></circle>')
            parts.append(dot.format(x(px), y(py), escape(series.name), number(round(py, 3)), px))
    return [*parts, Markup("</g>")]


def path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """A polyline as SVG path data."""
    return "M" + "L".join(f"{x(px):.1f} {y(py):.1f}" for px, py in points)


def smooth(points: Sequence[Point]) -> list[Point]:
    """Centred running mean over a tenth of the points; the window shrinks towards the ends."""
    reach = len(points) // 20
    out = []
    for k, (x, _) in enumerate(points):
        near = min(reach, k, len(points) - 1 - k)
        window = [value for _, value in points[k - near : k + near + 1]]
        out.append((x, sum(window) / len(window)))
    return out


_WIDTH, _ROW, _TOP = 440, 46, 6
_MOST = 600
"""The highest RSUM there is."""


def rsum_bars(rows: Sequence[ResultRow], name: str) -> Markup:
    """One bar a row, from 0 to 600, with the six recalls as its parts: the darker ones are image to text."""
    height = _TOP + _ROW * len(rows) + 4
    text = "; ".join(f"{row.name}: RSUM {row.rsum:.1f}" for row in rows)
    parts = [open_svg("RSUM, of at most 600", text, name, _WIDTH, height)]
    for index, row in enumerate(rows):
        parts.append(_bar(row, _TOP + index * _ROW))
    return Markup("").join(parts) + Markup("</svg>")


def _bar(row: ResultRow, top: float) -> Markup:
    kept = "" if row.retention is None else f"  ({row.retention:.0f} % of the teacher's)"
    label = Markup('<text class="bar-name" x="0" y="{:.1f}">{}</text>').format(top + 12, _short(row.name))
    value = Markup('<text class="bar-value" x="{}" y="{:.1f}">{:.1f}{}</text>')
    parts = [label, value.format(_WIDTH, top + 12, row.rsum, kept)]
    kind = row.role.split()[0]
    rail = Markup('<rect class="rail" x="0" y="{:.1f}" width="{}" height="16" rx="3"/>')
    parts.append(rail.format(top + 19, _WIDTH))
    start = 0.0
    for place, recall in enumerate((*row.image_to_text, *row.text_to_image)):
        width = _WIDTH * recall / _MOST
        side = "i2t" if place < 3 else "t2i"
        piece = Markup('<rect class="bar {} {}" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="16"/>')
        parts.append(piece.format(kind, side, start, top + 19, max(width - 1, 0.5)))
        start += width
    return Markup("").join(parts)


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
