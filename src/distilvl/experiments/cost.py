"""Table 3: parameters, FLOPs and milliseconds an item, of a teacher and its student, beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distilvl.evaluation.cost import BATCH, Cost
from distilvl.experiments.rendering import NONE, csv_text
from distilvl.io.markdown import markdown_table

NOT_MEASURABLE = "not measurable"
_NOTE = (
    "One item is one image or one caption, from the decoded picture or the string to the feature: resizing and "
    "tokenising count, for teacher and student alike. Milliseconds are medians of repeats after a warm-up, for items "
    f"handed over one at a time and {BATCH} at a time (a teacher may split them). FLOPs are PyTorch's count for a "
    "single item: two a multiply-add of matrix products, convolutions and attention; other operations and work "
    "outside PyTorch are not counted. A teacher that is known only by its stored features cannot be measured. The "
    "paper gives one time for each model, without saying for which input or batch."
)


@dataclass(frozen=True, slots=True)
class CostRow:
    """A line of Table 3.

    Attributes:
        model: its name.
        cost: none when the model cannot be run, as a teacher known by stored features only.
        rsum: its RSUM, where known.
    """

    model: str
    cost: Cost | None
    rsum: float | None


@dataclass(frozen=True, slots=True)
class PaperCost:
    """A line of the paper's Table 3."""

    model: str
    parameters: float
    seconds: float
    rsum: float


PAPER_TABLE3 = (
    PaperCost("BEiT-3, teacher", 1900e6, 0.0165, 586.5),
    PaperCost("ViT-B/16 + BERT-base, student", 197e6, 0.0021, 528.8),
)


def retention(student: float | None, teacher: float | None) -> float | None:
    """The student's RSUM in percent of the teacher's."""
    return 100 * student / teacher if student is not None and teacher else None


def table3_markdown(teacher: CostRow, student: CostRow) -> str:
    """Table 3 as Markdown, our two rows and the paper's."""
    header = ["model", "parameters, M"]
    for side in ("image", "caption"):
        header += [f"{side}: GFLOPs", f"{side}: ms, batch 1", f"{side}: ms, batch {BATCH}"]
    rows = [_markdown_row(f"{row.model}, {role}", row) for role, row in (("teacher", teacher), ("student", student))]
    if teacher.cost and student.cost:
        rows.append(["teacher / student", *_ratios(_numbers(teacher.cost), _numbers(student.cost)), "", ""])
    header += ["RSUM", "retention, %"]
    rows[1][-1] = _format(retention(student.rsum, teacher.rsum), 1)
    paper = [[row.model, f"{row.parameters / 1e6:.0f}", f"{row.seconds * 1e3:.1f}", f"{row.rsum:.1f}", ""]
             for row in PAPER_TABLE3]  # fmt: skip
    paper[1][-1] = _format(retention(PAPER_TABLE3[1].rsum, PAPER_TABLE3[0].rsum), 1)
    paper_header = ["the paper's Table 3", "parameters, M", "ms an item", "RSUM", "retention, %"]
    parts = ["## Table 3: what teacher and student cost", markdown_table(header, rows), _NOTE]
    return "\n\n".join([*parts, markdown_table(paper_header, paper)]) + "\n"


def table3_csv(teacher: CostRow, student: CostRow) -> str:
    """Table 3 as CSV: our two rows and the paper's, numbers unrounded."""
    sides = [f"{side}_{what}" for side in ("image", "text") for what in ("flops", "ms_batch_1", f"ms_batch_{BATCH}")]
    lines: list[list[Any]] = [["source", "role", "model", "parameters", *sides, "paper_seconds", "rsum", "retention"]]
    kept = retention(student.rsum, teacher.rsum)
    for role, row in (("teacher", teacher), ("student", student)):
        numbers: Sequence[float | None] = _numbers(row.cost) if row.cost else [None] * 7
        lines.append(["measured", role, row.model, *numbers, None, row.rsum, kept if role == "student" else None])
    kept = retention(PAPER_TABLE3[1].rsum, PAPER_TABLE3[0].rsum)
    for role, paper in zip(("teacher", "student"), PAPER_TABLE3, strict=True):
        start = ["paper", role, paper.model, int(paper.parameters), *[None] * 6]
        lines.append([*start, paper.seconds, paper.rsum, kept if role == "student" else None])
    return csv_text(lines)


def table3_json(teacher: CostRow, student: CostRow) -> dict[str, Any]:
    """Table 3 for programs, numbers unrounded; what cannot be measured is `None`."""
    return {
        "teacher": asdict(teacher),
        "student": asdict(student),
        "retention": retention(student.rsum, teacher.rsum),
        "paper": [asdict(row) for row in PAPER_TABLE3],
        "note": _NOTE,
    }


def _numbers(cost: Cost) -> list[float | None]:
    sides = (value for side in (cost.image, cost.text) for value in (side.flops, side.ms_one, side.ms_batch))
    return [cost.parameters, *sides]


def _markdown_row(name: str, row: CostRow) -> list[str]:
    rsum = _format(row.rsum, 1)
    if row.cost is None:
        return [name, *[NOT_MEASURABLE] * 7, rsum, ""]
    sides = [
        text
        for side in (row.cost.image, row.cost.text)
        for text in (_format(side.flops, 3, 1e9), _format(side.ms_one, 2), _format(side.ms_batch, 2))
    ]
    return [name, _format(row.cost.parameters, 2, 1e6), *sides, rsum, ""]


def _ratios(above: Sequence[float | None], below: Sequence[float | None]) -> list[str]:
    return [f"{a / b:.1f}x" if a is not None and b else NONE for a, b in zip(above, below, strict=True)]


def _format(value: float | None, digits: int, unit: float = 1.0) -> str:
    return NONE if value is None else f"{value / unit:.{digits}f}"
