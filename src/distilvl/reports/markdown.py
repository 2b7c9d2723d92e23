"""The report as Markdown: everything but the pictures."""

from __future__ import annotations

from collections.abc import Sequence

from distilvl.io.markdown import code, fenced, markdown_table, plain
from distilvl.reports.examples import EXPLAINED, Example
from distilvl.reports.report import Report, config_text, environment_rows
from distilvl.reports.run import Run
from distilvl.reports.tables import (
    Table,
    agreement_table,
    chart_table,
    differences_table,
    published_note,
    published_table,
    results_table,
    sizes_table,
    spaces_table,
)

_INTERVALS = (
    "Intervals are bootstrapped over images and p is of a paired permutation test; both cover the choice of queries, "
    "not another training run or seed."
)


def render_markdown(report: Report) -> str:
    """All sections of the page, in the same order."""
    parts = [
        f"# {plain(report.title)}",
        f"Made {report.created}.",
        *_states(report.runs),
        "## Results",
        *_results(report),
        *_differing(report),
        *_charts(report),
        *_examples(report),
        *_spaces(report),
        *_sizes(report),
        *_left_out(report),
        "## How to repeat",
        *[part for run in report.runs for part in _repeat(run)],
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    header = [plain(name) for name in table.header]
    rows = []
    for index, row in enumerate(table.rows):
        cells = [plain(cell) for cell in row]
        rows.append([f"**{cells[0]}**", *cells[1:]] if index in table.strong and cells[0] else cells)
    return f"{plain(table.caption)}:\n\n" + markdown_table(header, rows, [plain(word) for word in table.words])


def _states(runs: Sequence[Run]) -> list[str]:
    return ["\n".join(f"- **{plain(run.name)}** ({run.state.kind}): {plain(run.state.text)}" for run in runs)]


def _results(report: Report) -> list[str]:
    parts = []
    if report.measured and report.gallery:
        parts.append(_table(results_table(report.measured, "Measured for this report")))
        parts.append(f"Ground truth: {plain(report.gallery.truth.text)}.")
        if report.gallery.note is not None:
            parts.append(plain(report.gallery.note))
    if report.differences and report.gallery:
        parts += [_table(differences_table(report.gallery.students[0].name, report.differences)), _INTERVALS]
    if report.results:
        parts.append(_table(results_table(report.results, "Measured by the runs on their validation split")))
        if report.mixed_truths:
            parts.append(plain(report.mixed_truths))
    if not parts:
        parts.append("No run has a validation score yet.")
    test_set, rows = report.published
    return [*parts, _table(published_table(test_set, rows)), published_note(rows)]


def _differing(report: Report) -> list[str]:
    if len(report.runs) < 2:
        return []
    if not report.differing:
        return ["## What differs", "The runs have the same configuration."]
    header = ("key", *(run.name for run in report.runs))
    rows = tuple((key, *values) for key, values in report.differing)
    return ["## What differs", _table(Table("Settings in which the runs differ", header, rows, frozenset(header)))]


def _charts(report: Report) -> list[str]:
    parts = ["## Curves"] if report.charts else ["## Curves", "Nothing is logged yet."]
    for group in report.charts:
        parts += [f"### {plain(group.title)}", plain(group.note)]
        parts += [_table(chart_table(chart)) for chart in group.charts]
    return parts


def _examples(report: Report) -> list[str]:
    if not report.examples or report.gallery is None:
        return ["## Retrieval examples", plain(report.gallery_reason or "None were asked for.")]
    parts = ["## Retrieval examples", f"Of {plain(report.gallery.students[0].name)}, on {plain(report.gallery.label)}."]
    return [*parts, *(_example(example) for example in report.examples)]


def _example(example: Example) -> str:
    ranks = ", ".join(f"{plain(name)} {rank}" for name, rank in example.ranks.items())
    lines = [
        f"- {example.direction}: “{plain(example.question)}” (image {plain(example.image_id)}). "
        f"{EXPLAINED[example.kind]} Rank of the right answer: {ranks}."
    ]
    for answer in example.answers:
        mark = "right" if answer.right else "wrong"
        lines.append(f"  {answer.place}. {mark}, cosine {answer.similarity:.2f}: {plain(answer.text)}")
    if example.teacher_answer is not None:
        lines.append(f"  - the teacher's first answer: {plain(example.teacher_answer)}")
    return "\n".join(lines)


def _spaces(report: Report) -> list[str]:
    if not report.spaces:
        return []
    parts = ["## Feature spaces", _table(spaces_table(report.spaces))]
    return [*parts, _table(agreement_table(report.agreements))] if report.agreements else parts


def _sizes(report: Report) -> list[str]:
    return ["## Size, speed and memory", _table(sizes_table(report.sizes))] if report.sizes else []


def _left_out(report: Report) -> list[str]:
    lines = [f"- {plain(name)}: {plain(line)}" for name, found in report.left_out for line in found.lines()]
    return ["## Left out", "\n".join(lines)] if lines else []


def _repeat(run: Run) -> list[str]:
    rows = "\n".join(f"- {plain(key)}: {plain(value)}" for key, value in environment_rows(run))
    return [
        f"### {plain(run.name)}",
        f"Seed {run.config.training.seed}; folder {code(str(run.folder.path))}.",
        fenced(run.command, "sh"),
        rows or "Its environment is not known.",
        fenced(config_text(run), "yaml"),
    ]
