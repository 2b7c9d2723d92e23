from __future__ import annotations

from typing import Any

import pytest

from distilvl.reports.charts import MOST_POINTS, Chart, Series, build_charts
from distilvl.reports.drawing import style_of
from distilvl.reports.run import read_runs
from distilvl.reports.tables import chart_table


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


def test_what_a_chart_says_in_words_and_in_its_table() -> None:
    chart = Chart("RSUM", "epochs", "RSUM", (Series("a", ((1.0, 10.0), (2.0, 30.0), (3.0, 20.0)), dots=True),
                                            Series("teacher", ((1.0, 40.0), (3.0, 40.0)), level=True)))  # fmt: skip
    assert "a: from 10 to 20, lowest 10, highest 30." in chart.text
    assert "teacher: 40." in chart.text
    assert chart_table(chart).rows == [("1", "10", "40"), ("2", "30", "40"), ("3", "20", "40")]
    assert [style_of(chart, k) for k in (0, 1)] == ["c0 curve", "reference level"]


def test_a_loss_that_is_not_known_has_its_own_name(make_run: Any, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        if "losses" in line:
            for part in ("losses", "rate", "weight", "scale"):
                line[part] = {**line[part], "my_loss": 1.0}
    charts = _charts(read_runs([make_run("a", lines)]))
    assert charts["my_loss"].series[0].points[0] == (0.1, 1.0)
    assert [series.name for series in charts["Weights w"].series] == ["CD", "FD", "my_loss"]
