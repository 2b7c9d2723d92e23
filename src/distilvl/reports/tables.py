"""Tables of the report, as text cells: the same for the page and the Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distilvl.evaluation import Agreement
from distilvl.experiments.published import OTHER_SET, PlacedRow
from distilvl.experiments.rendering import NONE, RECALL_NAMES, format_p
from distilvl.reports.charts import Chart, Series
from distilvl.reports.results import Difference, ResultRow, Size
from distilvl.reports.spaces import Space

SAMPLES = 9


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the rows.

    Attributes:
        caption: what it holds.
        header: one name a column.
        rows: cells.
        words: columns that hold words rather than numbers, besides the first.
        strong: rows that are ours or matter most.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[str] = frozenset()
    strong: frozenset[int] = frozenset()


def results_table(rows: Sequence[ResultRow], caption: str) -> Table:
    """Students beside their teacher."""
    header: tuple[str, ...] = (
        "model",
        "role",
        *RECALL_NAMES,
        "RSUM",
        "95 % interval",
        "of its teacher's",
        "measured on",
        "ground truth",
        "note",
    )
    cells: list[tuple[str, ...]] = [
        (
            row.name,
            row.role,
            *(f"{value:.1f}" for value in (*row.image_to_text, *row.text_to_image)),
            f"{row.rsum:.1f}",
            NONE if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}",
            NONE if row.retention is None else f"{row.retention:.1f} %",
            row.measured_on,
            row.ground_truth or NONE,
            row.note,
        )
        for row in rows
    ]
    # Columns that say nothing, or the same in every row, go to the caption or away.
    places, truths = {row.measured_on for row in rows}, {row.ground_truth for row in rows if row.ground_truth}
    silent = {
        "note": not any(row.note for row in rows),
        "95 % interval": not any(row.interval for row in rows),
        "measured on": len(places) == 1,
        "ground truth": len(truths) < 2,
    }
    kept = [k for k, name in enumerate(header) if not silent.get(name, False)]
    header, cells = tuple(header[k] for k in kept), [tuple(line[k] for k in kept) for line in cells]
    if len(places) == 1:
        caption = f"{caption}: {places.pop()}"
    if len(truths) == 1:
        caption = f"{caption}; ground truth {truths.pop()}"
    strong = frozenset(k for k, row in enumerate(rows) if row.role == "student")
    return Table(caption, header, tuple(cells), frozenset({"role", "measured on", "ground truth", "note"}), strong)


def differences_table(first: str, rows: Sequence[Difference]) -> Table:
    """The first student against the others."""
    header = ("against", "difference of RSUM", "95 % interval", "p", "independent groups of images")
    cells = []
    for row in rows:
        found = row.comparison
        ends = f"{found.interval[0]:+.1f} to {found.interval[1]:+.1f}"
        cells.append((row.other, f"{found.difference:+.1f}", ends, format_p(found.p_value), str(found.images)))
    return Table(f"{first} against the other runs, on the same items", header, tuple(cells))


def published_table(test_set: str, rows: Sequence[PlacedRow]) -> Table:
    """Ours among published rows of `test_set`."""
    header = ("method", "published in", *RECALL_NAMES, "RSUM", "place", "measured on", "note")
    cells = [
        (
            row.method,
            row.published_in or "ours",
            *(f"{value:.1f}" for value in (*row.image_to_text, *row.text_to_image)),
            f"{row.rsum:.1f}",
            NONE if row.place is None else str(row.place),
            row.measured_on,
            row.note,
        )
        for row in rows
    ]
    strong = frozenset(k for k, row in enumerate(rows) if row.ours)
    words = frozenset({"published in", "measured on", "note"})
    return Table(f"Published results on {test_set}, and ours", header, tuple(cells), words, strong)


def published_note(rows: Sequence[PlacedRow]) -> str:
    """A warning where our rows stand among results of another test set."""
    if any(OTHER_SET in row.measured_on for row in rows):
        return (
            "Not comparable: our rows were measured on another test set than the published ones, so where they stand "
            "in this list says nothing about the order. They are shown for orientation only."
        )
    return "Places are given by RSUM to students and methods measured on this test set."


def spaces_table(spaces: Sequence[Space]) -> Table:
    """Modality gap and cosines of each space."""
    header = ("space", "modality gap", "cosine of matching pairs", "of other pairs", "PC1", "PC2", "PC3")
    rows = [
        (
            space.name,
            *(f"{space.numbers[key] + 0.0:.3f}" for key in ("modality_gap", "matching_cosine", "other_cosine")),
            *(f"{100 * share:.1f} %" for share in space.numbers["explained_variance"]),
        )
        for space in spaces
    ]
    return Table("The spaces in numbers, over all items", header, tuple(rows))


def agreement_table(agreements: Sequence[tuple[str, Agreement]]) -> Table:
    """How far each student orders and places things as the teacher does."""
    header = ("student", "overlap@10 i2t", "t2i", "rank correlation i2t", "t2i ", "CKA image", "text", "cosine image")
    rows = []
    for name, found in agreements:
        cosine = found.cosine or (None, None)
        values = (*found.overlap, *found.rank_correlation, *found.cka, *cosine)
        rows.append((name, *(NONE if value is None else f"{value:.3f}" for value in values)))
    return Table("Agreement with the teacher", (*header, "cosine text"), tuple(rows))


def sizes_table(sizes: Sequence[Size]) -> Table:
    """Parameters, disk, speed and memory; empty columns are left out."""
    header = ["model", "parameters, M", "weights in fp32, MiB", "folder, MiB"]
    for side in ("image", "caption"):
        header += [f"GFLOPs an {side}" if side == "image" else f"GFLOPs a {side}"]
        header += [f"ms, {side}, batch 1", f"ms, {side}, batch 64"]
    header += ["peak memory, MiB", "of which libraries, MiB", "device"]
    rows = [_size_cells(size) for size in sizes]
    kept = [k for k in range(len(header)) if k < 2 or any(row[k] not in ("", NONE) for row in rows)]
    lines = tuple(tuple(row[k] for k in kept) for row in rows)
    return Table("Size, speed and memory", tuple(header[k] for k in kept), lines, frozenset({"device"}))


def chart_table(chart: Chart) -> Table:
    """A chart's values at about nine places, for those who cannot see it, or want the figures."""
    lines = [series for series in chart.series if not series.level]
    places = sorted({x for series in lines for x in _sampled(series)})
    header = (chart.x, *(series.name for series in chart.series))
    rows = []
    for place in places:
        cells = [_near(series, place) for series in chart.series]
        if any(cells):
            rows.append((f"{place:.4g}", *(cell or NONE for cell in cells)))
    return Table(f"{chart.title}: values", header, tuple(rows))


def _sampled(series: Series) -> list[float]:
    count = len(series.points)
    if count <= SAMPLES:
        return [x for x, _ in series.points]
    return [series.points[round(k * (count - 1) / (SAMPLES - 1))][0] for k in range(SAMPLES)]


def _near(series: Series, place: float) -> str:
    if series.level:
        return f"{series.points[0][1]:.4g}"
    return next((f"{y:.4g}" for x, y in series.points if abs(x - place) < 1e-9), "")


def _size_cells(size: Size) -> tuple[str, ...]:
    cost, memory = size.cost, size.memory
    sides = []
    for side in (cost.image, cost.text) if cost else (None, None):
        sides += [_number(side.flops if side else None, 2, 1e9)]
        sides += [_number(side.ms_one if side else None, 2), _number(side.ms_batch if side else None, 2)]
    weights = None if size.parameters is None or size.disk is None else 4 * size.parameters / 2**20
    return (
        size.model,
        _number(size.parameters, 2, 1e6),
        _number(weights, 1),
        _number(size.disk, 1),
        *sides,
        _number(memory.peak if memory else None, 0),
        _number(memory.libraries if memory else None, 0),
        size.device,
    )


def _number(value: float | None, digits: int, unit: float = 1.0) -> str:
    return NONE if value is None else f"{value / unit:.{digits}f}"
