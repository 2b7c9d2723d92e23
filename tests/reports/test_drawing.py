from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.reports.charts import Chart, Series, build_charts
from distilvl.reports.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart, smooth
from distilvl.reports.run import read_runs

finite = st.floats(-1e8, 1e8, allow_nan=False)


def _charts(runs: Any) -> dict[str, Chart]:
    return {chart.title: chart for group in build_charts(runs) for chart in group.charts}


def _longer(lines: list[dict[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """The same run with so many epochs."""
    out = []
    for epoch in range(epochs):
        for line in lines[:11]:
            out.append({**line, "step": line["step"] + 10 * epoch, "epoch": epoch})
    return out


@settings(max_examples=15)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=60))
def test_any_finite_values_make_a_picture_with_few_ticks(points: list[tuple[float, float]]) -> None:
    chart = Chart("<t>", "steps", "y & z", (Series("a<b>&", tuple(sorted(points))),))
    root = ET.fromstring(str(line_chart(chart, "c")))
    curves = [path for group in root.iter("g") if "curve" in str(group.get("class")) for path in group.iter("path")]
    numbers = [float(x) for path in curves if "id" not in path.attrib
               for x in path.get("d", "").replace("M", " ").replace("L", " ").split()]  # fmt: skip
    assert numbers
    assert all(math.isfinite(x) and -1 <= x <= 401 for x in numbers)
    for anchor in ("middle", "end"):
        placed = [text for text in root.iter("text") if text.get("text-anchor") == anchor]
        assert 0 < len(placed) <= 14
        assert all(
            0 <= float(text.get("x", "")) <= WIDTH and 0 <= float(text.get("y", "")) <= HEIGHT for text in placed
        )


@settings(max_examples=15)
@given(finite, st.floats(1e-6, 1e8))
def test_the_axis_holds_its_values_and_begins_and_ends_with_a_tick(low: float, span: float) -> None:
    chart = Chart("t", "steps", "y", (Series("a", ((0.0, low), (1.0, low + span))),))
    ticks = [float(text.get("y", "")) for text in _drawn(chart).iter("text") if text.get("text-anchor") == "end"]
    assert 2 <= len(ticks) <= 8
    assert (max(ticks) - min(ticks)) == pytest.approx(HEIGHT - TOP - BOTTOM, abs=0.3)


def _drawn(chart: Chart) -> ET.Element:
    return ET.fromstring(str(line_chart(chart, "c")))


def test_the_same_chart_is_the_same_text_and_has_no_style_of_its_own() -> None:
    chart = Chart("RSUM", "epochs", "RSUM", (Series("a", ((1.0, 10.0), (2.0, 30.0)), dots=True),))
    first, second, other = (str(line_chart(chart, name)) for name in ("c1", "c1", "c2"))
    assert first == second
    for element in ET.fromstring(first).iter():
        assert not {"style", "fill", "stroke", "clip-path"} & set(element.keys())
    ids = [re.findall(r' id="([^"]+)"', text) for text in (first, other)]
    assert not set(ids[0]) & set(ids[1])
    assert "<title>a: 10 at 1</title>" in first


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DistilvlError, match=r"pip install 'distilvl\[report\]'"):
        line_chart(Chart("t", "steps", "y", (Series("a", ((1.0, 10.0),)),)), "c")


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    chart = Chart("t", "steps", "y", (Series("a", ((0.0, 0.02), (1.0, 300.0))),), log=True)
    text = str(line_chart(chart, "c"))
    assert ">0.01<" in text
    assert ">1000<" in text


def test_smoothing_keeps_a_straight_line_and_the_ends() -> None:
    line = [(float(k), 2.0 * k) for k in range(100)]
    assert smooth(line) == line


def test_the_picture_has_a_title_and_a_description() -> None:
    chart = Chart("RSUM", "epochs", "RSUM", (Series("a", ((1.0, 10.0),), dots=True),))
    root = ET.fromstring(str(line_chart(chart, "c7")))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "c7-t c7-d"
    described = {child.get("id"): child.text for child in root if child.get("id")}
    assert described == {"c7-t": "RSUM over epochs", "c7-d": chart.text}


@pytest.mark.parametrize("order", [("long", "short"), ("short", "long")])
def test_the_teachers_line_reaches_the_end_of_the_longest_run(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any], order: tuple[str, str]
) -> None:
    given_lines = {"long": _longer(lines, 5), "short": lines}
    runs = read_runs([make_run(name, given_lines[name], finished_result) for name in order])
    for title in ("RSUM", "R@1, image to text", "R@10, text to image"):
        chart = _charts(runs)[title]
        (level,) = [series for series in chart.series if series.level]
        assert (level.name, [x for x, _ in level.points]) == ("teacher", [0.0, 5.0])
        assert _level(chart) == (LEFT, WIDTH - RIGHT)


def _level(chart: Chart) -> tuple[float, float]:
    """Where the chart's level line begins and ends."""
    group = next(group for group in _drawn(chart).iter("g") if "level" in str(group.get("class")).split())
    found = re.fullmatch(r"M([0-9.]+) ([0-9.]+)L([0-9.]+) ([0-9.]+)", str(group.find("path").get("d")))  # type: ignore[union-attr]
    assert found is not None
    assert found[2] == found[4]
    return float(found[1]), float(found[3])


def test_the_line_is_drawn_across_a_single_step(make_run: Any, lines: list[dict[str, Any]]) -> None:
    chart = Chart("RSUM", "steps", "RSUM", (Series("a", ((7.0, 10.0),), dots=True),
                                            Series("teacher", ((7.0, 40.0), (7.0, 40.0)), level=True)))  # fmt: skip
    assert _level(chart) == (LEFT, WIDTH - RIGHT)


def test_teachers_that_differ_are_told_apart(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]
) -> None:
    other = {**finished_result, "teacher": {**finished_result["teacher"], "rsum": 420.0}}
    given = [("a", finished_result), ("b", other), ("c", finished_result)]
    chart = _charts(read_runs([make_run(name, lines, result) for name, result in given]))["RSUM"]
    levels = {series.name: series.points[0][1] for series in chart.series if series.level}
    assert levels == {"teacher of a and c": 400.0, "teacher of b": 420.0}
    drawn = str(line_chart(chart, "c"))
    assert '<g class="c1 level">' in drawn  # in the colour of b
    assert '<g class="reference level">' in drawn
