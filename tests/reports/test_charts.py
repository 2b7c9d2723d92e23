from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.reports.charts import MOST_POINTS, Chart, Series, build_charts
from distilvl.reports.run import read_runs
from distilvl.reports.svg import LEFT, RIGHT, WIDTH, Scale, legend, line_chart, nice_step, smooth, ticks
from distilvl.reports.tables import chart_table

finite = st.floats(-1e8, 1e8, allow_nan=False)


def _charts(runs: Any) -> dict[str, Chart]:
    return {chart.title: chart for group in build_charts(runs) for chart in group.charts}


def test_the_curves_of_one_run(make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]) -> None:
    charts = _charts(read_runs([make_run("a", lines, finished_result)]))
    rsum = charts["RSUM"]
    assert rsum.x == "epochs"
    assert rsum.series[0].points == ((1.0, 150.0), (2.0, 300.0))
    assert rsum.series[1].level
    assert rsum.series[1].points[0][1] == 400.0
    assert [series.name for series in charts["Recall, image to text"].series if not series.level] == [
        "R@1",
        "R@5",
        "R@10",
    ]
    assert charts["Contrastive distillation (CD)"].series[0].points[9] == (1.0, 0.5)
    multipliers = {series.name: series.points[0][1] for series in charts["Multipliers w·s"].series}
    assert multipliers == {"CD": 1.0, "FD": 10.0}
    assert charts["Multipliers w·s"].log
    assert [series.name for series in charts["Learning rate"].series] == ["towers", "heads"]
    assert {"Weights w", "Rates r", "Gradient norm", "Speed of training"} <= set(charts)


def test_runs_are_overlaid_and_keep_their_colour(make_run: Any, lines: list[dict[str, Any]]) -> None:
    other = [dict(line) for line in lines]
    for line in other:
        if "losses" in line:
            line["losses"] = {"infonce": 2.0}
            line["lr"] = {"towers": 1e-4, "heads": 1e-4}
    charts = _charts(read_runs([make_run("a", lines), make_run("b", other)]))
    assert [series.name for series in charts["RSUM"].series] == ["a", "b"]
    assert [series.name for series in charts["Learning rate"].series] == [
        "a, towers",
        "a, heads",
        "b, towers and heads",
    ]
    alone = charts["Contrastive, without a teacher (InfoNCE)"].series
    assert [(series.name, series.slot) for series in alone] == [("b", 1)]


def test_a_running_first_epoch_counts_steps(make_run: Any, lines: list[dict[str, Any]]) -> None:
    charts = _charts(read_runs([make_run("a", lines[:5])]))
    assert charts["Speed of training"].x == "steps"
    assert "RSUM" not in charts


def test_numbers_that_are_not_finite_are_left_out(make_run: Any, lines: list[dict[str, Any]]) -> None:
    lines[2]["losses"]["cd"] = float("nan")
    lines[3]["losses"]["cd"] = float("inf")
    lines[4]["grad_norm"] = None
    charts = _charts(read_runs([make_run("a", lines)]))
    assert len(charts["Contrastive distillation (CD)"].series[0].points) == 18
    assert len(charts["Gradient norm"].series[0].points) == 19


def test_no_lines_no_charts(make_run: Any) -> None:
    assert build_charts(read_runs([make_run("a", [])])) == []


def test_long_runs_are_thinned_to_means_and_keep_their_ends(make_run: Any, lines: list[dict[str, Any]]) -> None:
    many = [{**lines[0], "step": step, "grad_norm": float(step)} for step in range(1, 2001)]
    points = _charts(read_runs([make_run("a", many)]))["Gradient norm"].series[0].points
    assert len(points) <= MOST_POINTS + 2
    assert (points[0], points[-1]) == ((1.0, 1.0), (2000.0, 2000.0))
    assert all(x == pytest.approx(y) for x, y in points)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=60))
def test_any_finite_values_make_a_picture(points: list[tuple[float, float]]) -> None:
    chart = Chart("<t>", "steps", "y & z", (Series("a<b>&", tuple(sorted(points))),))
    root = ET.fromstring(str(line_chart(chart, "c")))
    numbers = [float(x) for path in root.iter() if path.get("class") == "mean"
               for x in path.get("d", "").replace("M", " ").replace("L", " ").split()]  # fmt: skip
    assert numbers
    assert all(math.isfinite(x) and -1 <= x <= 401 for x in numbers)


@given(finite, st.floats(1e-6, 1e8))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(Scale(low, low + span, 0, 100))
    assert 0 < len(found) <= 12
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)
    assert nice_step(span) >= span / 6


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    chart = Chart("t", "steps", "y", (Series("a", ((0.0, 0.02), (1.0, 300.0))),), log=True)
    text = str(line_chart(chart, "c"))
    assert ">0.01<" in text
    assert ">1000<" in text


def test_smoothing_keeps_a_straight_line_and_the_ends() -> None:
    line = [(float(k), 2.0 * k) for k in range(100)]
    assert smooth(line) == line


def test_what_a_chart_says_in_words_and_in_its_table() -> None:
    chart = Chart("RSUM", "epochs", "RSUM", (Series("a", ((1.0, 10.0), (2.0, 30.0), (3.0, 20.0)), dots=True),
                                            Series("teacher", ((1.0, 40.0), (3.0, 40.0)), level=True)))  # fmt: skip
    assert "a: from 10 to 20, lowest 10, highest 30." in chart.text
    assert "teacher: 40." in chart.text
    assert chart_table(chart).rows == (("1", "10", "40"), ("2", "30", "40"), ("3", "20", "40"))
    assert [name for _, name in legend(chart)] == ["a", "teacher"]


def test_the_picture_has_a_title_and_a_description() -> None:
    chart = Chart("RSUM", "epochs", "RSUM", (Series("a", ((1.0, 10.0),), dots=True),))
    root = ET.fromstring(str(line_chart(chart, "c7")))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "c7-t c7-d"
    described = {child.get("id"): child.text for child in root if child.get("id")}
    assert described == {"c7-t": "RSUM over epochs", "c7-d": chart.text}


def _longer(lines: list[dict[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """The same run with so many epochs."""
    out = []
    for epoch in range(epochs):
        for line in lines[:11]:
            out.append({**line, "step": line["step"] + 10 * epoch, "epoch": epoch})
    return out


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
        drawn = next(piece for piece in str(line_chart(chart, "c")).split("<path ") if 'class="level"' in piece)
        assert re.search(rf'd="M{LEFT} [0-9.]+H{WIDTH - RIGHT}"', drawn)


def test_the_line_is_drawn_across_a_single_step(make_run: Any, lines: list[dict[str, Any]]) -> None:
    chart = Chart("RSUM", "steps", "RSUM", (Series("a", ((7.0, 10.0),), dots=True),
                                            Series("teacher", ((7.0, 40.0), (7.0, 40.0)), level=True)))  # fmt: skip
    assert re.search(rf'class="level" d="M{LEFT} [0-9.]+H{WIDTH - RIGHT}"', str(line_chart(chart, "c")))


def test_teachers_that_differ_are_told_apart(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]
) -> None:
    other = {**finished_result, "teacher": {**finished_result["teacher"], "rsum": 420.0}}
    given = [("a", finished_result), ("b", other), ("c", finished_result)]
    chart = _charts(read_runs([make_run(name, lines, result) for name, result in given]))["RSUM"]
    levels = {series.name: series.points[0][1] for series in chart.series if series.level}
    assert levels == {"teacher of a and c": 400.0, "teacher of b": 420.0}
    drawn = str(line_chart(chart, "c"))
    assert re.search(r'<g class="c1"><path class="level"', drawn)  # in the colour of b
    assert re.search(r'<g class="reference"><path class="level"', drawn)
