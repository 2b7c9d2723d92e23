from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest

from distilvl.experiments.cells import Cell, CellScore, Claim, PaperRow, TableResult, TableSpec
from distilvl.experiments.rendering import format_p, to_csv, to_json, to_markdown
from distilvl.io.markdown import markdown_table


def run(seed: int, rsum: float) -> CellScore:
    """A score whose recalls are apart from each other and add up to `rsum`."""
    return CellScore(
        seed, (rsum / 6 - 3, rsum / 6 - 2, rsum / 6 - 1), (rsum / 6 + 1, rsum / 6 + 2, rsum / 6 + 3), rsum, 7
    )


FULL = PaperRow(image_to_text=(82.0, 95.5, 97.7), text_to_image=(68.4, 90.8, 94.4), rsum=528.8)


def result(**changes: object) -> TableResult:
    cells = (
        Cell(name="dsmd", label="DSMD", paper=FULL),
        Cell(name="fsp", label="FSP | flow", paper=PaperRow(rsum=513.8), note="Gram matrices"),
        Cell(name="kd", label="KD", paper=PaperRow(rsum=444.4)),
        Cell(name="lost", label="Lost", paper=PaperRow(rsum=484.5)),
        Cell(name="extra", label="Extra"),
    )
    claims = (
        Claim(text="DSMD is best", better="dsmd", than=("fsp", "kd")),
        Claim(text="DSMD beats Lost", better="dsmd", than=("lost",)),
        Claim(text="KD beats Extra", better="kd", than=("extra",)),
    )
    spec = TableSpec(name="table2", title="Table 2: methods", cells=cells, claims=claims, notes=("A note.",))
    scores = {
        "dsmd": (run(0, 300.0), run(1, 301.0), run(2, 302.0)),
        "fsp": (run(0, 290.0), run(1, 291.0), run(2, 292.0)),
        "kd": (run(0, 310.0), run(1, 309.0)),
        "lost": (),
        "extra": (run(1, 250.0),),
    }
    given = {
        "spec": spec,
        "scores": scores,
        "failures": {"lost": "out of\nmemory"},
        "teacher_rsum": 333.14,
        "conditions": {"data": "scenes,\nval", "command": "distilvl reproduce table2 --seeds 3\n"},
    }
    return TableResult(**{**given, **changes})  # type: ignore[arg-type]


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


def test_a_row_has_means_spread_the_paper_and_ranks() -> None:
    text = to_markdown(result())
    assert line(text, "| DSMD") == (
        "| DSMD | 47.2 | 48.2 | 49.2 | 51.2 | 52.2 | 53.2 | 301.0 ± 1.0 | 3 | 528.8 | 2 | 1 |"
    )
    assert line(text, "| KD").endswith("| 309.5 ± 0.7 | 2 | 444.4 | 1 | 3 |")


def test_cells_without_a_run_a_spread_or_a_paper_value() -> None:
    text = to_markdown(result())
    assert line(text, "| Lost").endswith("| – | failed | 0 | 484.5 | – | – |")
    assert line(text, "| Extra").endswith("| 250.0 | 1 | – | – | – |")
    assert "- Lost: out of memory" in text
    assert "not run" in to_markdown(result(failures={}))


def test_pipes_in_labels_do_not_break_the_table() -> None:
    text = to_markdown(result())
    assert "| FSP \\| flow |" in text
    table = [row.replace("\\|", "") for row in text.splitlines() if row.startswith("|")]
    assert {row.count("|") for row in table} == {13}


def test_conditions_command_teacher_and_notes() -> None:
    text = to_markdown(result())
    assert text.startswith(
        "## Table 2: methods\n\n- data: scenes, val\n\n```sh\ndistilvl reproduce table2 --seeds 3\n```\n"
    )
    assert "RSUM 333.1." in text
    assert "- A note.\n- FSP | flow: Gram matrices\n" in text
    assert "same split" not in to_markdown(result(teacher_rsum=None))


def test_claims_with_differences_p_and_verdicts() -> None:
    """DSMD - FSP: 10 at each seed. DSMD - KD: -10, -8, so t = -9 with one degree of freedom, doubled for two cells."""
    text = to_markdown(result())
    p, half = 1 - 2 / math.pi * math.atan(9), math.tan(math.pi / 2 * 0.975)  # t(0.9875), s / sqrt(n) = 1
    same = "DSMD over FSP | flow: +10.0 ± 0.0 [+10.0, +10.0], 0.0 (3 seeds, p < 0.001); holds"
    assert f"1. DSMD is best: **cannot be told**\n   - {same}" in text
    between = f"[{-9 - half:+.1f}, {-9 + half:+.1f}]"
    assert re.search(
        rf"   - DSMD over KD: -9\.0 ± 1\.4 {re.escape(between)}, \d+\.\d \(2 seeds, p = {p:.3f}\); cannot", text
    )
    assert "2. DSMD beats Lost: **cannot be told**\n   - DSMD over Lost: no seed in common; cannot be told" in text
    assert "   - KD over Extra: +59.0 (1 seed, no test with one seed); cannot be told" in text


def test_rank_agreement_over_cells_that_both_have() -> None:
    """Ours KD > DSMD > FSP, the paper's DSMD > FSP > KD: of three pairs one alike, two not: tau = -1/3."""
    assert "Kendall's tau -0.33 over 3 cells" in to_markdown(result())
    assert to_json(result())["rank_agreement"] == {"kendall_tau": pytest.approx(-1 / 3), "cells": 3}
    fewer = {"dsmd": (run(0, 300.0),), "fsp": (run(0, 299.0),)}
    assert "Kendall" not in to_markdown(result(scores=fewer))
    assert to_json(result(scores=fewer))["rank_agreement"]["kendall_tau"] is None


def test_nothing_has_run_yet() -> None:
    empty = result(scores={}, failures={}, teacher_rsum=None, conditions={})
    assert to_markdown(empty).count("not run") == 5
    assert {claim["verdict"] for claim in to_json(empty)["claims"]} == {"cannot be told"}
    assert [row["status"] for row in csv.DictReader(io.StringIO(to_csv(empty)))] == ["not run"] * 5


def test_csv_has_a_line_a_cell_and_seed() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(result()))))
    assert [(row["cell"], row["seed"]) for row in rows] == [
        *(("dsmd", seed) for seed in "012"),
        *(("fsp", seed) for seed in "012"),
        *(("kd", seed) for seed in "01"),
        ("lost", ""),
        ("extra", "1"),
    ]
    assert rows[1]["rsum"] == "301.0"
    assert float(rows[1]["i2t_r10"]) == 301 / 6 - 1
    assert float(rows[1]["t2i_r1"]) == 301 / 6 + 1
    assert (rows[1]["paper_i2t_r5"], rows[1]["paper_t2i_r10"], rows[1]["paper_rsum"]) == ("95.5", "94.4", "528.8")
    assert rows[3]["label"] == "FSP | flow"
    assert (rows[3]["paper_i2t_r1"], rows[3]["paper_rsum"]) == ("", "513.8")
    assert rows[8]["status"] == "failed: out of\nmemory"
    assert all(None not in row and None not in row.values() for row in rows)  # no line too long or too short


def test_a_failure_beside_finished_seeds_is_kept() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(result(failures={"kd": "seed 2: killed"})))))
    assert [row["status"] for row in rows if row["cell"] == "kd"] == ["finished", "finished", "failed: seed 2: killed"]
    assert "- KD: seed 2: killed" in to_markdown(result(failures={"kd": "seed 2: killed"}))


def test_json_is_plain_and_unrounded() -> None:
    found = json.loads(json.dumps(to_json(result()), allow_nan=False))
    dsmd, lost, first = found["cells"][0], found["cells"][3], found["claims"][0]
    assert dsmd["rsum"] == {"mean": 301.0, "spread": 1.0, "count": 3}
    assert dsmd["mean_recalls"]["image_to_text"][0] == pytest.approx(301 / 6 - 3, rel=1e-14)
    assert dsmd["paper"]["text_to_image"] == [68.4, 90.8, 94.4]
    assert [score["seed"] for score in dsmd["scores"]] == [0, 1, 2]
    assert (lost["rsum"], lost["mean_recalls"], lost["failure"]) == (None, None, "out of\nmemory")
    assert first["comparisons"][1]["difference"]["spread"] == pytest.approx(math.sqrt(2), rel=1e-12)
    assert (found["teacher_rsum"], found["conditions"]["data"]) == (333.14, "scenes,\nval")


def test_small_helpers() -> None:
    table = markdown_table(["a", "b", "c"], [["x|y", "1\n2", "z"]], ["c"])
    assert table == "| a | b | c |\n| --- | ---: | --- |\n| x\\|y | 1 2 | z |"
    assert (format_p(0.0421), format_p(0.0)) == ("p = 0.042", "p < 0.001")
