from __future__ import annotations

from typing import Any

from distilvl.experiments.published import OTHER_SET
from distilvl.reports.results import among_published, from_runs
from distilvl.reports.run import read_runs
from distilvl.reports.tables import published_note, published_table, results_table


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
