"""The report as tables of text cells, the same for the page and for Markdown; and as Markdown."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from distilvl.evaluation import Agreement
from distilvl.experiments.published import OTHER_SET, PlacedRow
from distilvl.experiments.rendering import NONE, RECALL_NAMES, fixed, format_p
from distilvl.io.markdown import code, fenced, markdown_table, plain
from distilvl.reports.charts import Chart, Series
from distilvl.reports.examples import EXPLAINED, Example
from distilvl.reports.gallery import Space
from distilvl.reports.report import Report, config_text, environment_rows
from distilvl.reports.results import CrossRow, Difference, ResultRow, Size
from distilvl.reports.run import Run

Cells = Sequence[str]
SAMPLES = 9
_INTERVALS = (
    "Intervals are bootstrapped over images and p is of a paired permutation test; both cover the choice of queries, "
    "not another training run or seed."
)

CROSS_NOTE = (
    "A student loses more on the side whose exchange for its teacher's raises RSUM more: on the texts where its images "
    "with the teacher's texts are ahead, on the images where the teacher's images with its texts are."
)


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the rows.

    Attributes:
        words: names of columns that hold words rather than numbers, besides the first.
        strong: numbers of rows that are ours or matter most.
    """

    caption: str
    header: Cells
    rows: Sequence[Cells]
    words: Collection[str] = ()
    strong: Collection[int] = ()


def report_tables(report: Report) -> dict[str, Table]:
    """All tables that have something to say, but those of the charts."""
    first = report.gallery.students[0].name if report.gallery else ""
    runs = ("key", *(run.name for run in report.runs))
    differing = [(key, *values) for key, values in report.differing]
    tables = {
        "published": published_table(*report.published),
        "results": results_table(report.results, "Measured by the runs on their validation split"),
        "measured": results_table(report.measured, "Measured for this report"),
        "differences": differences_table(first, report.differences),
        "crosses": cross_table(report.crosses),
        "differing": Table("Settings in which the runs differ", runs, differing, runs),
        "spaces": spaces_table(report.spaces),
        "agreement": agreement_table(report.agreements),
        "sizes": sizes_table(report.sizes),
    }
    return {name: table for name, table in tables.items() if table.rows}


def results_table(rows: Sequence[ResultRow], caption: str) -> Table:
    """Students beside their teacher."""
    about = ("measured on", "ground truth", "note")
    header = ("model", "role", *RECALL_NAMES, "RSUM", "95 % interval", "retention", *about)
    cells = [
        (row.name, row.role, *map(fixed, (*row.image_to_text, *row.text_to_image, row.rsum)),
         NONE if row.interval is None else f"{row.interval[0]:.1f} to {row.interval[1]:.1f}",
         NONE if row.retention is None else f"{row.retention:.1f} %",
         row.measured_on, row.ground_truth or NONE, row.note)
        for row in rows
    ]  # fmt: skip
    # Columns that say nothing, or the same in every row, go to the caption or away.
    places, truths = {row.measured_on for row in rows}, {row.ground_truth for row in rows if row.ground_truth}
    silent = {
        "note": not any(row.note for row in rows),
        "95 % interval": not any(row.interval for row in rows),
        "measured on": len(places) == 1,
        "ground truth": len(truths) < 2,
    }
    kept = [k for k, name in enumerate(header) if not silent.get(name, False)]
    caption += f": {places.pop()}" if len(places) == 1 else ""
    caption += f"; ground truth {truths.pop()}" if len(truths) == 1 else ""
    strong = {k for k, row in enumerate(rows) if row.role == "student"}
    return Table(caption, *_columns(header, cells, kept), ("role", *about), strong)


def _columns(header: Cells, rows: Sequence[Cells], kept: Sequence[int]) -> tuple[Cells, list[Cells]]:
    return [header[k] for k in kept], [tuple(row[k] for k in kept) for row in rows]


def differences_table(first: str, rows: Sequence[Difference]) -> Table:
    """The first student against the others."""
    header = ("against", "difference of RSUM", "95 % interval", "p", "independent groups of images")
    cells = []
    for row in rows:
        found = row.comparison
        ends = f"{found.interval[0]:+.1f} to {found.interval[1]:+.1f}"
        cells.append((row.other, f"{found.difference:+.1f}", ends, format_p(found.p_value), str(found.images)))
    return Table(f"{first} against the other runs, on the same items", header, cells)


def cross_table(rows: Sequence[CrossRow]) -> Table:
    """Each student, its two cross scores and its teacher; `CROSS_NOTE` says how to read it."""
    header = ("student", "its images, its texts", "its images, teacher's texts", "teacher's images, its texts")
    cells = [(row.name, *map(fixed, (row.student, row.student_images_teacher_texts, row.teacher_images_student_texts,
                                     row.teacher))) for row in rows]  # fmt: skip
    return Table("Cross scores, RSUM: on which side a student loses", (*header, "teacher's images and texts"), cells)


def published_table(test_set: str, rows: Sequence[PlacedRow]) -> Table:
    """Ours among published rows of `test_set`."""
    words = ("published in", "measured on", "note")
    header = ("method", words[0], *RECALL_NAMES, "RSUM", "place", *words[1:])
    cells = [(row.method, row.published_in or "ours", *map(fixed, (*row.image_to_text, *row.text_to_image, row.rsum)),
              fixed(row.place, 0), row.measured_on, row.note) for row in rows]  # fmt: skip
    strong = [k for k, row in enumerate(rows) if row.ours]
    return Table(f"Published results on {test_set}, and ours", header, cells, words, strong)


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
    rows = []
    for space in spaces:
        # Adding 0 turns the -0.0 of rounding into 0.0.
        values = [space.numbers[key] + 0.0 for key in ("modality_gap", "matching_cosine", "other_cosine")]
        shares = [f"{100 * share:.1f} %" for share in space.numbers["explained_variance"]]
        rows.append((space.name, *(fixed(value, 3) for value in values), *shares))
    return Table("The spaces in numbers, over all items", header, rows)


def agreement_table(agreements: Sequence[tuple[str, Agreement]]) -> Table:
    """How far each student orders and places things as the teacher does."""
    header = ("student", "overlap@10 i2t", "t2i", "rank correlation i2t", "t2i ", "CKA image", "text", "cosine image")
    rows = []
    for name, found in agreements:
        values = (*found.overlap, *found.rank_correlation, *found.cka, *(found.cosine or (None, None)))
        rows.append((name, *(fixed(value, 3) for value in values)))
    return Table("Agreement with the teacher", (*header, "cosine text"), rows)


def sizes_table(sizes: Sequence[Size]) -> Table:
    """Parameters, disk, speed and memory; empty columns are left out."""
    header = ["model", "parameters, M", "weights in fp32, MiB", "folder, MiB"]
    for article, side in (("an", "image"), ("a", "caption")):
        header += [f"GFLOPs {article} {side}", f"ms, {side}, batch 1", f"ms, {side}, batch 64"]
    header += ["peak memory, MiB", "of which libraries, MiB", "device"]
    rows = []
    for size in sizes:
        cost, memory = size.cost, (size.memory.peak, size.memory.libraries) if size.memory else (None, None)
        weights = None if size.parameters is None or size.disk is None else 4 * size.parameters / 2**20
        cells = [size.model, fixed(size.parameters, 2, 1e6), fixed(weights), fixed(size.disk)]
        for one in (cost.image, cost.text) if cost else (None, None):
            known = (one.flops, one.ms_one, one.ms_batch) if one else (None, None, None)
            cells += [fixed(value, 2, unit) for value, unit in zip(known, (1e9, 1.0, 1.0), strict=True)]
        rows.append([*cells, *(fixed(value, 0) for value in memory), size.device])
    kept = [k for k in range(len(header)) if k < 2 or any(row[k] not in ("", NONE) for row in rows)]
    return Table("Size, speed and memory", *_columns(header, rows, kept), ["device"])


def chart_table(chart: Chart) -> Table:
    """A chart's values at about nine places, for those who cannot see it, or want the figures."""
    places = sorted({x for series in chart.series if not series.level for x in _sampled(series)})
    rows = []
    for place in places:
        cells = [_near(series, place) for series in chart.series]
        if any(cells):
            rows.append((f"{place:.4g}", *(cell or NONE for cell in cells)))
    return Table(f"{chart.title}: values", (chart.x, *(series.name for series in chart.series)), rows)


def _sampled(series: Series) -> list[float]:
    count = len(series.points)
    chosen = range(count) if count <= SAMPLES else [round(k * (count - 1) / (SAMPLES - 1)) for k in range(SAMPLES)]
    return [series.points[k][0] for k in chosen]


def _near(series: Series, place: float) -> str:
    if series.level:
        return f"{series.points[0][1]:.4g}"
    return next((f"{y:.4g}" for x, y in series.points if abs(x - place) < 1e-9), "")


def render_markdown(report: Report) -> str:
    """All sections of the page but the pictures, in the same order."""
    tables = {name: _table(table) for name, table in report_tables(report).items()}
    states = [f"- **{plain(run.name)}** ({run.state.kind}): {plain(run.state.text)}" for run in report.runs]
    parts = [f"# {plain(report.title)}", f"Made {report.created}.", "\n".join(states), "## Results"]
    parts += _results(report, tables)
    if len(report.runs) > 1:
        parts += ["## What differs", tables.get("differing", "The runs have the same configuration.")]
    parts += ["## Curves"] if report.charts else ["## Curves", "Nothing is logged yet."]
    for group in report.charts:
        parts += [f"### {plain(group.title)}", plain(group.note)]
        parts += [_table(chart_table(chart)) for chart in group.charts]
    if report.examples and report.gallery:
        subject = f"Of {plain(report.gallery.students[0].name)}, on {plain(report.gallery.label)}."
        parts += ["## Retrieval examples", subject, *map(_example, report.examples)]
    else:
        parts += ["## Retrieval examples", plain(report.gallery_reason or "None were asked for.")]
    if "spaces" in tables:
        parts += ["## Feature spaces", *(tables[name] for name in ("spaces", "agreement") if name in tables)]
    if "sizes" in tables:
        parts += ["## Size, speed and memory", tables["sizes"]]
    left_out = [f"- {plain(name)}: {plain(line)}" for name, found in report.left_out for line in found.lines()]
    parts += ["## Left out", "\n".join(left_out)] if left_out else []
    parts += ["## How to repeat", *[part for run in report.runs for part in _repeat(run)]]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rows = []
    for index, row in enumerate(table.rows):
        first, *others = map(plain, row)
        rows.append([f"**{first}**" if index in table.strong and first else first, *others])
    header, words = ([plain(name) for name in names] for names in (table.header, table.words))
    return f"{plain(table.caption)}:\n\n" + markdown_table(header, rows, words)


def _results(report: Report, tables: dict[str, str]) -> list[str]:
    parts = []
    if "measured" in tables and report.gallery:
        parts += [tables["measured"], f"Ground truth: {plain(report.gallery.truth.text)}."]
        parts += [plain(report.gallery.note)] if report.gallery.note is not None else []
    if "differences" in tables:
        parts += [tables["differences"], _INTERVALS]
    if "crosses" in tables:
        parts += [tables["crosses"], CROSS_NOTE]
    if "results" in tables:
        parts += [tables["results"], *([plain(report.mixed_truths)] if report.mixed_truths else [])]
    parts = parts or ["No run has a validation score yet."]
    return [*parts, tables["published"], published_note(report.published[1])]


def _example(example: Example) -> str:
    ranks = ", ".join(f"{plain(name)} {rank}" for name, rank in example.ranks.items())
    query = f"{example.direction}: “{plain(example.question)}” (image {plain(example.image_id)})."
    lines = [f"- {query} {EXPLAINED[example.kind]} Rank of the right answer: {ranks}."]
    for answer in example.answers:
        mark = "right" if answer.right else "wrong"
        lines.append(f"  {answer.place}. {mark}, cosine {answer.similarity:.2f}: {plain(answer.text)}")
    if example.teacher_answer is not None:
        lines.append(f"  - the teacher's first answer: {plain(example.teacher_answer)}")
    return "\n".join(lines)


def _repeat(run: Run) -> list[str]:
    rows = "\n".join(f"- {plain(key)}: {plain(value)}" for key, value in environment_rows(run))
    title = [f"### {plain(run.name)}", f"Seed {run.config.seed}; folder {code(str(run.folder.path))}."]
    return [
        *title,
        fenced(run.command, "sh"),
        rows or "Its environment is not known.",
        fenced(config_text(run), "yaml"),
    ]
