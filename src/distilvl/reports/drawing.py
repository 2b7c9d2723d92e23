"""Curves and feature spaces as SVG: drawn by matplotlib, coloured by the page's style sheet."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from distilvl.experiments.figure2 import common_bins, draw_flat, draw_gap, require_matplotlib
from distilvl.reports.charts import Chart, Point, Series
from distilvl.reports.gallery import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 40
COLOURS = 8  # series styles of the style sheet, `c0` to `c7`; each differs in colour and in dashes
_SMOOTHED_FROM = 40
_SIDE, _MARGIN, _GAP_HEIGHT, _BINS = 300, 34, 116, 48


def line_chart(chart: Chart, name: str) -> Markup:
    """The chart; `name` makes its ids unique in the page."""
    figure, axes = _figure(WIDTH, HEIGHT, (LEFT, BOTTOM, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM))
    from matplotlib.ticker import MaxNLocator

    xs, ys = zip(*(point for series in chart.series for point in series.points), strict=True)
    locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    low, high = _apart(chart.start, max(xs))
    axes.set_xlim(low, high)
    _ticks(axes, "x", [value for value in locator.tick_values(low, high) if low <= value <= high * (1 + 1e-9)])
    if chart.log:  # whole powers of ten at the ends make ticks that can be read
        first, last = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9)
        axes.set_yscale("log")
        axes.set_ylim(10.0**first, 10.0**last)
        _ticks(axes, "y", [10.0**power for power in range(first, last + 1, math.ceil((last - first) / 5))])
    else:  # a scale that nearly reaches zero had better show it
        low, high = _apart(min(ys), max(ys))
        ticks = list(locator.tick_values(0.0 if 0 < low < 0.4 * high else low, high))
        axes.set_ylim(ticks[0], ticks[-1])
        _ticks(axes, "y", ticks)
    axes.grid(axis="y")
    axes.set(xlabel=chart.x, ylabel=chart.y + (", log" if chart.log else ""))
    axes.yaxis.set_label_coords((11 - LEFT) / (WIDTH - LEFT - RIGHT), 0.5)
    for index, series in enumerate(chart.series):
        _draw_series(axes, series, style_of(chart, index))
    dotted = [series for series in chart.series if _dotted(series)]
    tips = [f"{series.name}: {number(round(y, 3))} at {x:.4g}" for series in dotted for x, y in series.points]
    return _for_page(figure, name, f"{chart.title} over {chart.x}", chart.text, tips)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Two different ends, also around a single value."""
    if high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        return low, high
    margin = abs(low) / 10 or 1.0
    return low - margin, high + margin


def style_of(chart: Chart, index: int) -> str:
    """The style sheet's class of a series; a level has its line's colour, if names tell (`teacher of R@1`, `R@1`)."""
    series = chart.series[index]
    if not series.level:
        return f"c{series.slot % COLOURS} curve"
    slots = {f"teacher {of}{one.name}": one.slot for of in ("", "of ") for one in chart.series}
    return f"c{slots[series.name] % COLOURS} level" if series.name in slots else "reference level"


def _draw_series(axes: Axes, series: Series, style: str) -> None:
    if series.level:  # from edge to edge, however far the runs came
        axes.axhline(series.points[0][1], gid=f".{style}")
        return
    points: Sequence[Point] = series.points
    if len(points) >= _SMOOTHED_FROM and not series.dots and not series.exact:
        axes.plot(*zip(*points, strict=True), gid=f".{style} raw")
        points = smooth(points)
    axes.plot(*zip(*points, strict=True), gid=f".{style}", marker="o" if _dotted(series) else "", clip_on=False)


def _dotted(series: Series) -> bool:
    return not series.level and (series.dots or len(series.points) == 1)


def smooth(points: Sequence[Point]) -> list[Point]:
    """Centred running mean over a tenth of the points; the window shrinks towards the ends."""
    reach = len(points) // 20
    out = []
    for k, (x, _) in enumerate(points):
        near = min(reach, k, len(points) - 1 - k)
        window = [value for _, value in points[k - near : k + near + 1]]
        out.append((x, sum(window) / len(window)))
    return out


def number(value: float) -> str:
    """A tick's label: `0.05`, `400`, `1e-5`."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:.6g}"


def flat_view(space: Space, name: str) -> Markup:
    """PC1 and PC2: all points, some matching pairs joined, and both means."""
    figure, axes = _figure(_SIDE + _MARGIN + 10, _SIDE + 36, (_MARGIN, 26, _SIDE, _SIDE))
    draw_flat(axes, space.points, space.reach)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    return _for_page(figure, name, f"{space.name}: first two principal components", space.text)


def gap_view(space: Space, others: Sequence[Space], name: str) -> Markup:
    """How images and texts are spread along the line through both means; same scale for all spaces."""
    figure, axes = _figure(_SIDE + _MARGIN + 10, _GAP_HEIGHT, (_MARGIN, 24, _SIDE, _GAP_HEIGHT - 30))
    draw_gap(axes, space.points, common_bins([one.points for one in others], _BINS))
    axes.set(xticks=[], xlabel="along the line through both means")
    gap = f"{space.numbers['modality_gap']:.2f} apart."
    text = f"{space.name}: all images and all captions on the line through their means, {gap}"
    return _for_page(figure, name, f"{space.name}: along the modality gap", text)


def _figure(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[Figure, Axes]:
    """A figure of this size in pixels, and its axes: left, bottom, width and height."""
    require_matplotlib("The page of a report")
    import matplotlib
    from matplotlib.figure import Figure

    # At 72 dots an inch a point is a pixel; the style sheet has letters of 12 pixels.
    with matplotlib.rc_context({"font.size": 12, "axes.xmargin": 0, "axes.labelpad": 2}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    axes.tick_params(which="both", length=0, labelsize=12, pad=6)
    for hidden in (axes.spines[:], axes.patch, figure.patch):
        hidden.set_visible(False)
    return figure, axes


def _ticks(axes: Axes, which: str, values: Sequence[float]) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(values, [number(value) for value in values])
    axis.set_ticks([], minor=True)


_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def _for_page(figure: Figure, name: str, title: str, text: str, tips: Sequence[str] = ()) -> Markup:
    """The figure with classes in place of styles, which the page's policy forbids; marks have `tips`, in order.

    An artist whose gid begins with a dot (`.c0 curve`), or that has a label, is a group of those classes.
    """
    import matplotlib

    for artist in (*figure.axes[0].lines, *figure.axes[0].collections, *figure.axes[0].patches):
        if artist.get_gid() is None:
            artist.set_gid(f".{str(artist.get_label()).lstrip('_')}")
    buffer = io.StringIO()
    # A salt for the ids of its marks, and no date: the same figure gives the same text.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.3}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = ET.fromstring(buffer.getvalue())
    box, labels = drawn.get("viewBox", ""), f"{name}-t {name}-d"
    svg = ET.Element("svg", {"class": "plot", "role": "img", "viewBox": box, "aria-labelledby": labels})
    ET.SubElement(svg, "title", id=f"{name}-t").text = title
    ET.SubElement(svg, "desc", id=f"{name}-d").text = text
    _copy(drawn, svg, iter(tips))
    return Markup(ET.tostring(svg, encoding="unicode"))


def _copy(source: ET.Element, target: ET.Element, tips: Iterator[str]) -> None:
    """Paths, marks and letters of matplotlib's SVG, with coordinates to a tenth of a pixel."""
    for node in source:
        kind, inside = node.tag.removeprefix(_SVG), target
        if kind == "g" and node.get("id", "").startswith("."):
            inside = ET.SubElement(target, "g", {"class": node.get("id", "")[1:]})
        elif kind == "defs" and node.find(f"{_SVG}path") is not None:
            inside = ET.SubElement(target, "defs")
        elif kind == "path":
            ET.SubElement(target, "path", {key: _short(node.get(key, "")) for key in ("id", "d") if node.get(key)})
        elif kind == "use":
            places = {key: _short(node.get(key, "0")) for key in ("x", "y")}
            mark = ET.SubElement(target, kind, {"href": node.get(_LINK, ""), **places})
            if (tip := next(tips, None)) is not None:
                ET.SubElement(mark, "title").text = tip
        elif kind == "text":
            anchor = re.search(r"text-anchor: (\w+)", node.get("style", ""))
            places = {key: _short(node.get(key, "")) for key in ("x", "y", "transform") if node.get(key)}
            if places.get("transform", "").startswith("rotate(-0 "):
                del places["transform"]
            places["text-anchor"] = anchor[1] if anchor else "start"
            ET.SubElement(target, kind, places).text = node.text
        if kind in ("g", "defs"):
            _copy(node, inside, tips)


def _short(text: str) -> str:
    """Path data or coordinates with one decimal; ids, which have no decimals, stay as they are."""
    rounded = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", " ".join(rounded.split())) if rounded[:1] == "M" else rounded
