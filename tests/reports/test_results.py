from __future__ import annotations

from typing import Any

from distilvl.evaluation.intervals import Comparison
from distilvl.experiments.published import OTHER_SET
from distilvl.reports.html import render_html
from distilvl.reports.report import build_report
from distilvl.reports.results import Difference, among_published, from_runs
from distilvl.reports.run import read_runs
from distilvl.reports.tables import differences_table, published_note, published_table, render_markdown, results_table


def test_finished_and_unfinished_runs_beside_their_teacher(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]
) -> None:
    runs = read_runs([make_run("a", lines, finished_result), make_run("b", lines[:12]), make_run("c", [])])
    rows = from_runs(runs)
    assert [(row.name, row.rsum, row.retention) for row in rows] == [
        ("teacher", 400.0, None),
        ("a", 300.0, 75.0),
        ("b", 150.0, None),
    ]
    assert rows[2].note == "run not finished; epoch 1"
    table = results_table(rows, "all")
    assert table.caption == "all: gone/val, by the run; ground truth pairs"
    assert table.rows[1] == ("a", "student", *["50.0"] * 6, "300.0", "75.0 %", "")
    assert table.strong == {1, 2}


def test_a_run_without_a_teacher_is_a_baseline(make_run: Any, finished_result: dict[str, Any]) -> None:
    run = make_run("a", [], finished_result, ("objective.losses=[infonce]",))
    assert from_runs(read_runs([run]))[1].role == "baseline without a teacher"


def test_published_rows_are_marked_when_the_test_set_is_another(make_run: Any, finished_result: dict[str, Any]) -> None:
    rows = from_runs(read_runs([make_run("a", [], finished_result)]))
    test_set, placed = among_published(rows, None)
    assert test_set == "Flickr30k 1K test"
    ours = [row for row in placed if row.ours]
    assert [row.method for row in ours] == ["a"]
    assert ours[0].place is None
    assert OTHER_SET in ours[0].measured_on
    assert published_note(placed).startswith("Not comparable")
    table = published_table(test_set, placed)
    assert any(row[0].startswith("DSMD") for row in table.rows)
    assert [table.rows[k][0] for k in table.strong] == ["a"]


def _taught(finished: dict[str, Any], teacher: float, truth: str = "content") -> dict[str, Any]:
    recalls = dict.fromkeys(("r1", "r5", "r10"), teacher / 6)
    score = {"image_to_text": recalls, "text_to_image": recalls, "rsum": teacher}
    return finished | {"teacher": score, "ground_truth": truth}


def test_every_run_stands_beside_its_own_teacher(make_run: Any, finished_result: dict[str, Any]) -> None:
    results = (_taught(finished_result, 400.0), _taught(finished_result, 400.0), _taught(finished_result, 500.0))
    runs = read_runs([make_run(name, [], result) for name, result in zip("abc", results, strict=True)])
    rows = from_runs(runs)
    assert [(row.name, row.rsum, row.retention, row.teacher_rsum) for row in rows] == [
        ("teacher of a and b", 400.0, None, None),
        ("a", 300.0, 75.0, 400.0),
        ("b", 300.0, 75.0, 400.0),
        ("teacher of c", 500.0, None, None),
        ("c", 300.0, 60.0, 500.0),
    ]


def test_runs_of_different_ground_truths_are_said_not_to_be_comparable(
    make_run: Any, finished_result: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    first, second = _taught(finished_result, 400.0), _taught(finished_result, 400.0, "pairs")
    report = build_report([make_run("a", lines, first), make_run("b", lines, second)], timed=False)
    told = "Not comparable: the runs were scored on different ground truths (content: a; pairs: b)."
    assert report.mixed_truths == told
    assert told in report.charts[0].note
    assert render_html(report).count(told) == render_markdown(report).replace("\\", "").count(told) == 2
    alike = build_report([make_run("c", lines, first), make_run("d", lines, first)], timed=False)
    assert alike.mixed_truths == ""
    assert "Not comparable: the runs" not in render_html(alike)


def test_the_paired_test_counts_groups_of_images_and_says_so() -> None:
    table = differences_table("a", [Difference("b", Comparison(1.0, (-2.0, 4.0), 0.4, 18))])
    assert table.header[-1] == "independent groups of images"
    assert table.rows[0][-1] == "18"
