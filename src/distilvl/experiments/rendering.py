"""A table's results as Markdown for people, CSV for spreadsheets and JSON for programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distilvl.experiments.cells import Cell, CellScore, Claim, TableResult
from distilvl.experiments.statistics import (
    ClaimCheck,
    Comparison,
    Summary,
    check_claim,
    rank_agreement,
    ranks,
    summarise,
)
from distilvl.io.markdown import markdown_table, one_line, plain

RECALL_NAMES = tuple(f"{direction} R@{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10))
RECALL_KEYS = tuple(f"{direction}_r{k}" for direction in ("i2t", "t2i") for k in (1, 5, 10))
COMMAND = "command"
NONE = "–"
_RANK_NOTE = "Ranks are by RSUM, among the cells that have a score here and in the paper."
_TEST_NOTE = (
    "Differences of RSUM, mean ± sample standard deviation over seeds; p of the two-sided paired t-test, "
    "Holm-corrected over the cells of a claim; decided at 0.05. In brackets what the difference may be (95 % for "
    "all cells of a claim together), behind them the least difference that so many seeds show in four of five cases."
)


@dataclass(frozen=True)
class _Row:
    """A cell with its means, and its place by RSUM among the cells that have a score here and in the paper."""

    cell: Cell
    scores: tuple[CellScore, ...]
    recalls: tuple[float, ...]
    rsum: Summary | None
    failure: str | None
    rank: int | None
    paper_rank: int | None


@dataclass(frozen=True)
class _Analysis:
    rows: list[_Row]
    claims: list[tuple[Claim, ClaimCheck]]
    tau: float | None
    ranked: int


def to_markdown(result: TableResult) -> str:
    """The table as a Markdown section: conditions, cells beside the paper's values, claims, notes."""
    analysis = _analyse(result)
    header = ["cell", *RECALL_NAMES, "RSUM", "seeds", "paper's RSUM", "rank", "paper's rank"]
    notes = [f"{cell.label}: {cell.note}" for cell in result.spec.cells if cell.note]
    parts = [
        f"## {one_line(result.spec.title)}",
        _conditions(result.conditions),
        markdown_table(header, [_markdown_row(row) for row in analysis.rows]),
        *_below_table(result, analysis),
        *_claims(result, analysis),
        _bullets("Left out", [plain(line) for line in result.left_out.lines()]),
        _bullets("Notes", [one_line(note) for note in (*result.spec.notes, *notes)]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def to_csv(result: TableResult) -> str:
    """One line a cell and seed, with the paper's values; a cell that has not run has one line without scores."""
    header = ["table", "cell", "label", "status", "seed", *RECALL_KEYS, "rsum", "seconds"]
    lines: list[list[Any]] = [[*header, *(f"paper_{key}" for key in RECALL_KEYS), "paper_rsum"]]
    for cell in result.spec.cells:
        start, failure = [result.spec.name, cell.name, cell.label], result.failures.get(cell.name)
        paper: list[float | None] = [None] * 7
        if cell.paper is not None:
            sides = (cell.paper.image_to_text or paper[:3], cell.paper.text_to_image or paper[:3])
            paper = [*sides[0], *sides[1], cell.paper.rsum]
        for score in result.scores.get(cell.name, ()):
            values = [*score.image_to_text, *score.text_to_image, score.rsum, score.seconds]
            lines.append([*start, "finished", score.seed, *values, *paper])
        if failure is not None or not result.scores.get(cell.name):
            status = "not run" if failure is None else f"failed: {failure}"
            lines.append([*start, status, *[""] * 9, *paper])
    return csv_text(lines)


def to_json(result: TableResult) -> dict[str, Any]:
    """Everything, numbers unrounded, in values that `json.dump` takes; what is unknown is `None`."""
    analysis = _analyse(result)
    return {
        "table": result.spec.name,
        "title": result.spec.title,
        "conditions": dict(result.conditions),
        "teacher_rsum": result.teacher_rsum,
        "cells": [_json_row(row) for row in analysis.rows],
        "claims": [_json_claim(claim, check) for claim, check in analysis.claims],
        "rank_agreement": {"kendall_tau": analysis.tau, "cells": analysis.ranked},
        "notes": list(result.spec.notes),
        "left_out": result.left_out.as_dict(),
    }


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Lines as CSV text; `None` becomes an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def format_summary(summary: Summary, sign: bool = False) -> str:
    """`528.8 ± 1.2`: mean and standard deviation, where there is one."""
    mean = f"{summary.mean:+.1f}" if sign else f"{summary.mean:.1f}"
    return mean if summary.spread is None else f"{mean} ± {summary.spread:.1f}"


def _analyse(result: TableResult) -> _Analysis:
    scores = {cell.name: tuple(result.scores.get(cell.name, ())) for cell in result.spec.cells}
    rsum = {name: summarise([score.rsum for score in found]) for name, found in scores.items() if found}
    paper = {cell.name: cell.paper.rsum for cell in result.spec.cells if cell.paper is not None and cell.name in rsum}
    ours = {name: rsum[name].mean for name in paper}
    places = [dict(zip(paper, ranks(list(values.values())), strict=True)) for values in (ours, paper)]
    rows = []
    for cell in result.spec.cells:
        name, found = cell.name, scores[cell.name]
        columns = zip(*((*score.image_to_text, *score.text_to_image) for score in found), strict=True)
        recalls = tuple(summarise(column).mean for column in columns)
        rank, paper_rank = (by.get(name) for by in places)
        rows.append(_Row(cell, found, recalls, rsum.get(name), result.failures.get(name), rank, paper_rank))
    by_seed = {name: {score.seed: score.rsum for score in found} for name, found in scores.items()}
    claims = []
    for claim in result.spec.claims:
        claims.append((claim, check_claim(by_seed[claim.better], [by_seed[name] for name in claim.than])))
    tau = rank_agreement(list(ours.values()), list(paper.values()))
    return _Analysis(rows, claims, tau, len(paper))


def _conditions(conditions: Any) -> str:
    bullets = [f"- {name}: {one_line(value)}" for name, value in conditions.items() if name != COMMAND]
    command = conditions.get(COMMAND)
    parts = ["\n".join(bullets), f"```sh\n{command.strip()}\n```" if command else ""]
    return "\n\n".join(filter(None, parts))


def _markdown_row(row: _Row) -> list[str]:
    recalls = [fixed(value) for value in row.recalls or [None] * len(RECALL_NAMES)]
    rsum = format_summary(row.rsum) if row.rsum else ("not run" if row.failure is None else "failed")
    paper = fixed(row.cell.paper.rsum if row.cell.paper else None)
    return [row.cell.label, *recalls, rsum, str(len(row.scores)), paper, fixed(row.rank, 0), fixed(row.paper_rank, 0)]


def _below_table(result: TableResult, analysis: _Analysis) -> list[str]:
    parts = [_RANK_NOTE] if analysis.ranked else []
    if analysis.tau is not None:
        parts.append(
            f"Rank agreement with the paper: Kendall's tau {analysis.tau:.2f} over {analysis.ranked} cells "
            "(1: the same order, -1: the reverse)."
        )
    if result.teacher_rsum is not None:
        parts.append(f"The teacher's stored features on the same split: RSUM {result.teacher_rsum:.1f}.")
    failed = [f"{row.cell.label}: {one_line(row.failure)}" for row in analysis.rows if row.failure is not None]
    return [*parts, _bullets("Failed runs", failed)]


def _claims(result: TableResult, analysis: _Analysis) -> list[str]:
    if not analysis.claims:
        return []
    lines = []
    for number, (claim, check) in enumerate(analysis.claims, start=1):
        lines.append(f"{number}. {one_line(claim.text)}: **{check.verdict}**")
        better = one_line(result.spec.cell(claim.better).label)
        for name, comparison in zip(claim.than, check.comparisons, strict=True):
            lines.append(f"   - {better} over {one_line(result.spec.cell(name).label)}: {_comparison(comparison)}")
    return ["Claims:", "\n".join(lines), _TEST_NOTE]


def _comparison(comparison: Comparison) -> str:
    if comparison.difference is None:
        return f"no seed in common; {comparison.verdict}"
    count = comparison.difference.count
    p = "no test with one seed" if comparison.adjusted_p is None else format_p(comparison.adjusted_p)
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    between = ""
    if comparison.interval is not None and comparison.detectable is not None:
        low, high = comparison.interval
        between = f" [{low:+.1f}, {high:+.1f}], {comparison.detectable:.1f}"
    return f"{format_summary(comparison.difference, sign=True)}{between} ({seeds}, {p}); {comparison.verdict}"


def fixed(value: float | None, digits: int = 1, unit: float = 1.0) -> str:
    """`value` in units of `unit` with so many decimals; a dash where it is not known."""
    return NONE if value is None else f"{value / unit:.{digits}f}"


def format_p(p: float) -> str:
    """`p = 0.042`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _bullets(title: str, lines: Sequence[str]) -> str:
    return "\n\n".join((f"{title}:", "\n".join(f"- {line}" for line in lines))) if lines else ""


def _json_row(row: _Row) -> dict[str, Any]:
    mean = {"image_to_text": list(row.recalls[:3]), "text_to_image": list(row.recalls[3:])} if row.scores else None
    cell = row.cell.model_dump(mode="json")
    return {
        **{key: cell[key] for key in ("name", "label", "method", "set", "note", "paper")},
        "scores": [asdict(score) for score in row.scores],
        "mean_recalls": mean,
        "rsum": asdict(row.rsum) if row.rsum else None,
        "failure": row.failure,
        "rank": row.rank,
        "paper_rank": row.paper_rank,
    }


def _json_claim(claim: Claim, check: ClaimCheck) -> dict[str, Any]:
    comparisons = [{"than": name, **asdict(one)} for name, one in zip(claim.than, check.comparisons, strict=True)]
    return {"text": claim.text, "better": claim.better, "verdict": check.verdict, "comparisons": comparisons}
