"""Table 3: parameters, FLOPs and milliseconds an item, of a teacher and its student, measured the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distilvl.errors import DistilvlError
from distilvl.experiments.rendering import NONE, csv_text
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.io.markdown import markdown_table
from distilvl.io.progress import median_ms
from distilvl.students.storage import count_parameters
from distilvl.teachers.sentence_transformer import as_text

BATCH = 64
NOT_MEASURABLE = "not measurable"
_NOTE = (
    "One item is one image or one caption, from the decoded picture or the string to the feature: resizing and "
    "tokenising count, for teacher and student alike. Milliseconds are medians of repeats after a warm-up, for items "
    f"handed over one at a time and {BATCH} at a time (a teacher may split them). FLOPs are PyTorch's count for a "
    "single item: two a multiply-add of matrix products, convolutions and attention; other operations and work "
    "outside PyTorch are not counted. A teacher that is known only by its stored features cannot be measured. The "
    "paper gives one time for each model, without saying for which input or batch."
)


class Encoder(Protocol):
    """What is timed: any `Teacher`, or a `StudentEncoder`."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to rows, shape (n, D)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to rows, shape (n, D)."""


class StudentEncoder:
    """A student behind the same two calls as a teacher, through its public `encode`."""

    def __init__(self, student: SentenceTransformer) -> None:
        self._student = student
        self.num_parameters = count_parameters(student)

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to rows, shape (n, D)."""
        return self._encode(list_of_images(images))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to rows, shape (n, D)."""
        return self._encode([as_text(text) for text in list_of_texts(texts)])

    def _encode(self, items: list[Any]) -> npt.NDArray[Any]:
        rows = self._student.encode(items, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(rows)


@dataclass(frozen=True, slots=True)
class SideCost:
    """Cost of one modality.

    Attributes:
        flops: of one item; none when PyTorch saw no operation it can count.
        ms_one: milliseconds an item at batch 1.
        ms_batch: milliseconds an item at batch 64.
    """

    flops: int | None
    ms_one: float
    ms_batch: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs; `parameters` is none for a teacher that does not tell."""

    parameters: int | None
    image: SideCost
    text: SideCost


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


def measure_cost(encoder: Encoder, images: Sequence[Image.Image], captions: Sequence[str], *, repeats: int = 5) -> Cost:
    """Parameters, FLOPs and time of `encoder`, end to end.

    Args:
        encoder: a teacher, or a student in a `StudentEncoder`.
        images: decoded RGB images; fewer than 64 are repeated to fill a batch. FLOPs are of the first.
        captions: likewise.
        repeats: timed calls for each figure, after one that is not timed.

    Raises:
        DistilvlError: no image, no caption, or no repeat.
    """
    if not images or not captions or repeats < 1:
        raise DistilvlError("a cost needs at least one image, one caption and one repeat.", "Give more.")
    return Cost(
        parameters=getattr(encoder, "num_parameters", None),
        image=_side(encoder.encode_images, images, repeats),
        text=_side(encoder.encode_texts, captions, repeats),
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


def _side(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], items: Sequence[Any], repeats: int) -> SideCost:
    singles = [[items[k % len(items)]] for k in range(repeats + 1)]
    full = [items[k % len(items)] for k in range(BATCH)]
    return SideCost(
        flops=_flops(encode, items[0]),
        ms_one=median_ms(encode, singles),
        ms_batch=median_ms(encode, [full] * (repeats + 1)) / BATCH,
    )


def _flops(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], item: Any) -> int | None:
    # The counter does not know the fused attention of CPUs; the plain one is made of products that it does know.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encode([item])
    return counter.get_total_flops() or None


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
