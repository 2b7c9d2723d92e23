"""Tables 1 and 3: our figures beside published ones; what teacher and student cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, model_validator

from distilvl.evaluation.cost import BATCH, Cost
from distilvl.experiments.cells import Part, Recalls
from distilvl.experiments.rendering import NONE, RECALL_KEYS, RECALL_NAMES, csv_text, fixed
from distilvl.io.markdown import markdown_table

PUBLISHED = Path(__file__).parent / "published.yaml"
SUM_TOLERANCE = 0.15  # how far a printed RSUM may be from the sum of six recalls that were rounded to 0.1 each

TestSet = Literal["Flickr30k 1K test", "COCO 5K test"]
TEST_SETS: tuple[TestSet, ...] = ("Flickr30k 1K test", "COCO 5K test")
OTHER_SET = "not comparable: other test set"


class PublishedRow(Part):
    """A published result, its figures read in `source`; a teacher is shown for orientation and is no competitor.

    `verified` is "paper text" when arXiv 2404.10838 states the whole row, else "secondary".
    """

    method: str
    venue: str
    year: int
    role: Literal["method", "teacher"] = "method"
    data: TestSet
    image_to_text: Recalls
    text_to_image: Recalls
    rsum: float
    source: str
    verified: Literal["paper text", "secondary"]
    note: str = ""

    @model_validator(mode="after")
    def _recalls_add_up(self) -> PublishedRow:
        total = sum(self.image_to_text) + sum(self.text_to_image)
        if abs(total - self.rsum) > SUM_TOLERANCE:
            raise ValueError(f"{self.method}: the six recalls add up to {total:.1f}, not to {self.rsum}")
        return self


@dataclass(frozen=True, slots=True)
class OurRow:
    """A result of ours; comparable only where `data`, the test set it was measured on, is one of `TEST_SETS`."""

    name: str
    image_to_text: Recalls
    text_to_image: Recalls
    rsum: float
    data: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A line of Table 1; `verified` as in `PublishedRow`, or "measured here" for ours."""

    place: int | None  # by RSUM among the students and methods measured on this test set
    method: str
    ours: bool
    published_in: str
    image_to_text: Recalls
    text_to_image: Recalls
    rsum: float
    measured_on: str  # the test set, with a warning where it is another one than the table's
    verified: str
    source: str
    note: str


def load_published() -> list[PublishedRow]:
    """The rows of `published.yaml`, checked."""
    return TypeAdapter(list[PublishedRow]).validate_python(yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")))


def table1(published: Sequence[PublishedRow], ours: Sequence[OurRow], data: TestSet) -> list[PlacedRow]:
    """The rows for one test set, highest RSUM first.

    Rows of ours that were measured on the other published test set are left to that set's table; rows measured on
    anything else are in both, without a place and marked as not comparable.
    """
    known = [row for row in published if row.data == data]
    shown = [row for row in ours if row.data == data or row.data not in TEST_SETS]
    competing = [row.rsum for row in known if row.role == "method"] + [row.rsum for row in shown if row.data == data]
    rows = [_published(row, competing) for row in known] + [_ours(row, data, competing) for row in shown]
    return sorted(rows, key=lambda row: row.rsum, reverse=True)


def table1_markdown(published: Sequence[PublishedRow], ours: Sequence[OurRow]) -> str:
    """Table 1 as Markdown: one table a test set; our rows in bold."""
    words = ["published in", "measured on", "figures from", "note"]
    header = ["method", words[0], *RECALL_NAMES, "RSUM", "place", *words[1:]]
    parts = ["## Table 1: image-text retrieval, published results and ours"]
    for data in TEST_SETS:
        rows = [_markdown_row(row) for row in table1(published, ours, data)]
        parts += [f"### {data}", markdown_table(header, rows, words)]
    parts.append(
        "A place is given to students and methods measured on that test set. Figures from `paper text` are stated by "
        "arXiv 2404.10838; `secondary` ones are quoted from the sources named in the CSV and JSON files. Rows that are "
        f"marked as {OTHER_SET!r} stand where their RSUM would put them, which says nothing about the order."
    )
    return "\n\n".join(parts) + "\n"


def table1_csv(published: Sequence[PublishedRow], ours: Sequence[OurRow]) -> str:
    """Table 1 as CSV: one line a row and test set."""
    header = ["table", "place", "method", "ours", "published_in", *RECALL_KEYS, "rsum", "measured_on"]
    lines: list[list[Any]] = [[*header, "verified", "source", "note"]]
    for data in TEST_SETS:
        for row in table1(published, ours, data):
            start = [data, row.place, row.method, row.ours, row.published_in, *row.image_to_text, *row.text_to_image]
            lines.append([*start, row.rsum, row.measured_on, row.verified, row.source, row.note])
    return csv_text(lines)


def table1_json(published: Sequence[PublishedRow], ours: Sequence[OurRow]) -> dict[str, Any]:
    """Table 1 for programs: `{test set: [rows, highest RSUM first]}`."""
    return {data: [asdict(row) for row in table1(published, ours, data)] for data in TEST_SETS}


def _published(row: PublishedRow, competing: Sequence[float]) -> PlacedRow:
    teacher, figures = row.role == "teacher", (row.image_to_text, row.text_to_image, row.rsum)
    place = None if teacher else 1 + sum(other > row.rsum for other in competing)
    note = "; ".join(part for part in ("the paper's teacher" if teacher else "", row.note) if part)
    venue = f"{row.venue} {row.year}"
    return PlacedRow(place, row.method, False, venue, *figures, row.data, row.verified, row.source, note)


def _ours(row: OurRow, data: TestSet, competing: Sequence[float]) -> PlacedRow:
    comparable, figures = row.data == data, (row.image_to_text, row.text_to_image, row.rsum)
    place = 1 + sum(other > row.rsum for other in competing) if comparable else None
    measured_on = row.data if comparable else f"{row.data} ({OTHER_SET})"
    return PlacedRow(place, row.name, True, "", *figures, measured_on, "measured here", "", row.note)


def _markdown_row(row: PlacedRow) -> list[str]:
    name, published_in = (f"**{row.method}**", "ours") if row.ours else (row.method, row.published_in)
    figures = [fixed(value) for value in (*row.image_to_text, *row.text_to_image, row.rsum)]
    return [name, published_in, *figures, fixed(row.place, 0), row.measured_on, row.verified, row.note]


NOT_MEASURABLE = "not measurable"
_COST_NOTE = (
    "One item is one image or one caption, from the decoded picture or the string to the embedding: resizing and "
    "tokenising count, for teacher and student alike. Milliseconds are medians of repeats after a warm-up, for items "
    f"handed over one at a time and {BATCH} at a time (a teacher may split them). FLOPs are PyTorch's count for a "
    "single item: two a multiply-add of matrix products, convolutions and attention; other operations and work "
    "outside PyTorch are not counted. A teacher that is known only by its stored features cannot be measured. The "
    "paper gives one time for each model, without saying for which input or batch."
)


@dataclass(frozen=True, slots=True)
class CostRow:
    """A line of Table 3; there is no cost of a model that cannot be run, as a teacher known by stored features only."""

    model: str
    cost: Cost | None
    rsum: float | None

    @property
    def numbers(self) -> list[float | None]:
        """Parameters; then FLOPs and milliseconds of an image, and of a text."""
        if self.cost is None:
            return [None] * 7
        sides = (self.cost.image, self.cost.text)
        return [self.cost.parameters, *(n for side in sides for n in (side.flops, side.ms_one, side.ms_batch))]


@dataclass(frozen=True, slots=True)
class PaperCost:
    """A line of the paper's Table 3."""

    model: str
    parameters: float
    seconds: float
    rsum: float


_PAPER_STUDENT = PaperCost("ViT-B/16 + BERT-base, student", 197e6, 0.0021, 528.8)
PAPER_TABLE3 = (PaperCost("BEiT-3, teacher", 1900e6, 0.0165, 586.5), _PAPER_STUDENT)
_DIGITS = ((2, 1e6), *((3, 1e9), (2, 1.0), (2, 1.0)) * 2)  # decimals and unit of each of the numbers of a cost


def table3_markdown(teacher: CostRow, student: CostRow) -> str:
    """Table 3 as Markdown, our two rows and the paper's."""
    numbers = ("GFLOPs", "ms, batch 1", f"ms, batch {BATCH}")
    header = ["parameters, M", *(f"{side}: {what}" for side in ("image", "caption") for what in numbers), "RSUM"]
    rows = []
    for row, role, share in ((teacher, "teacher", ""), (student, "student", fixed(_retention(student, teacher)))):
        figures = [fixed(value, *digits) for value, digits in zip(row.numbers, _DIGITS, strict=True)]
        figures = figures if row.cost else [NOT_MEASURABLE] * len(figures)
        rows.append([f"{row.model}, {role}", *figures, fixed(row.rsum), share])
    if teacher.cost and student.cost:
        pairs = zip(teacher.numbers, student.numbers, strict=True)
        ratios = [f"{a / b:.1f}x" if a is not None and b else NONE for a, b in pairs]
        rows.append(["teacher / student", *ratios, "", ""])
    paper = [
        [row.model, fixed(row.parameters, 0, 1e6), fixed(row.seconds, 1, 1e-3), fixed(row.rsum), share]
        for row, share in zip(PAPER_TABLE3, ("", fixed(_retention(PAPER_TABLE3[1], PAPER_TABLE3[0]))), strict=True)
    ]
    ours = markdown_table(["model", *header, "retention, %"], rows)
    theirs = markdown_table(["the paper's Table 3", "parameters, M", "ms an item", "RSUM", "retention, %"], paper)
    return "\n\n".join(["## Table 3: what teacher and student cost", ours, _COST_NOTE, theirs]) + "\n"


def table3_csv(teacher: CostRow, student: CostRow) -> str:
    """Table 3 as CSV: our two rows and the paper's, numbers unrounded."""
    sides = [f"{side}_{what}" for side in ("image", "text") for what in ("flops", "ms_batch_1", f"ms_batch_{BATCH}")]
    lines: list[list[Any]] = [["source", "role", "model", "parameters", *sides, "paper_seconds", "rsum", "retention"]]
    roles = (("teacher", None), ("student", _retention(student, teacher)))
    for (role, share), row in zip(roles, (teacher, student), strict=True):
        lines.append(["measured", role, row.model, *row.numbers, None, row.rsum, share])
    roles = (("teacher", None), ("student", _retention(PAPER_TABLE3[1], PAPER_TABLE3[0])))
    for (role, share), paper in zip(roles, PAPER_TABLE3, strict=True):
        lines.append(["paper", role, paper.model, int(paper.parameters), *[None] * 6, paper.seconds, paper.rsum, share])
    return csv_text(lines)


def table3_json(teacher: CostRow, student: CostRow) -> dict[str, Any]:
    """Table 3 for programs, numbers unrounded; what cannot be measured is `None`."""
    ours = {"teacher": asdict(teacher), "student": asdict(student), "retention": _retention(student, teacher)}
    return ours | {"paper": [asdict(row) for row in PAPER_TABLE3], "note": _COST_NOTE}


def _retention(student: CostRow | PaperCost, teacher: CostRow | PaperCost) -> float | None:
    """In percent."""
    return 100 * student.rsum / teacher.rsum if student.rsum is not None and teacher.rsum else None
