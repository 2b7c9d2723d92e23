"""The report as one HTML page that needs nothing but itself.

A content security policy with the hashes of its own script and style sheet keeps the page from asking for anything,
and keeps anything that slipped into it from running.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distilvl._version import __version__
from distilvl.reports.charts import Chart
from distilvl.reports.examples import EXPLAINED
from distilvl.reports.report import Report, config_text, environment_rows
from distilvl.reports.run import Run
from distilvl.reports.spaces import flat_view, gap_view
from distilvl.reports.svg import HEIGHT, LEFT, RIGHT, WIDTH, legend, line_chart, rsum_bars
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

KIND_LABELS = {
    "right": "Right",
    "teacher only": "Only the teacher is right",
    "both fail": "Both are wrong, in the same way",
    "student only": "Only the student is right",
    "wrong": "Wrong",
}


Tile = tuple[str, str, str]


@dataclass(frozen=True)
class _Drawn:
    """A chart made ready for the page."""

    name: str
    chart: Chart
    svg: Markup
    legend: list[tuple[Markup, str]]
    table: Table


def render_html(report: Report) -> str:
    """The whole page; every text that comes from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("distilvl.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_asset(environment, name) for name in ("report.css", "report.js"))
    groups = _charts(report)
    page = environment.get_template("report.html.j2")
    return page.render(
        report=report,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        data=inline_json(_data(report, groups)),
        tiles=_tiles(report),
        bars=rsum_bars(report.headline, "bars") if report.headline else None,
        tables=_tables(report),
        groups=groups,
        kinds=KIND_LABELS,
        explained={kind: EXPLAINED[kind] for kind in EXPLAINED if any(e.kind == kind for e in report.examples)},
        spaces=[
            (space, flat_view(space, f"flat{k}"), gap_view(space, report.spaces, f"gap{k}"))
            for k, space in enumerate(report.spaces)
        ],
        published_note=published_note(report.published[1]),
        config_text=config_text,
        environment_rows=environment_rows,
    )


def inline_json(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever strings it holds; `allow_nan` off, as browsers need it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _asset(environment: Environment, name: str) -> str:
    assert environment.loader is not None  # set above
    return environment.loader.get_source(environment, name)[0]


def _policy(style: str, script: str) -> str:
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def _charts(report: Report) -> list[tuple[str, str, list[_Drawn]]]:
    groups, count = [], 0
    for group in report.charts:
        drawn = []
        for chart in group.charts:
            name = f"chart{count}"
            drawn.append(_Drawn(name, chart, line_chart(chart, name), legend(chart), chart_table(chart)))
            count += 1
        groups.append((group.title, group.note, drawn))
    return groups


def _data(report: Report, groups: list[tuple[str, str, list[_Drawn]]]) -> dict[str, Any]:
    """What the script needs: points of the spaces, and the charts' values for reading them off."""
    charts = {}
    for _, _, drawn in groups:
        for one in drawn:
            xs = sorted({x for series in one.chart.series if not series.level for x, _ in series.points})
            lines = [(series.name, series.points) for series in one.chart.series if not series.level]
            charts[one.name] = {"x": one.chart.x, "places": xs, "low": _low(one.chart), "lines": lines}
    frame = {"left": LEFT, "right": WIDTH - RIGHT, "width": WIDTH, "height": HEIGHT}
    return {"spaces": [space.points() for space in report.spaces], "charts": charts, "frame": frame}


def _low(chart: Chart) -> float:
    """Where the horizontal axis begins, as `line_chart` has it."""
    return 0.0 if chart.x == "epochs" else min(x for series in chart.series for x, _ in series.points)


def _tables(report: Report) -> dict[str, Table]:
    tables = {"published": published_table(*report.published)}
    if report.results:
        tables["results"] = results_table(report.results, "Measured by the runs on their validation split")
    if report.measured and report.gallery:
        caption = "Measured for this report"
        tables["measured"] = results_table(report.measured, caption)
    if report.differences and report.gallery:
        tables["differences"] = differences_table(report.gallery.students[0].name, report.differences)
    if report.differing:
        header = ("key", *(run.name for run in report.runs))
        rows = tuple((key, *values) for key, values in report.differing)
        tables["differing"] = Table("Settings in which the runs differ", header, rows, frozenset(header))
    if report.spaces:
        tables["spaces"] = spaces_table(report.spaces)
    if report.agreements:
        tables["agreement"] = agreement_table(report.agreements)
    if report.sizes:
        tables["sizes"] = sizes_table(report.sizes)
    return tables


def _tiles(report: Report) -> list[tuple[str, list[Tile]]]:
    """Each run in a few figures, where there are any."""
    tiles = [(run.name, _tiles_of(report, run)) for run in report.runs]
    return [(name, of_run) for name, of_run in tiles if of_run]


def _tiles_of(report: Report, run: Run) -> list[Tile]:
    """Label, figure, and what it is compared with."""
    rows = [*report.headline, *report.results]
    row = next((row for row in rows if row.name == run.name), None)
    tiles = []
    if row is not None:
        beside = "" if row.teacher_rsum is None else f"the teacher has {row.teacher_rsum:.1f}"
        tiles.append(("RSUM", f"{row.rsum:.1f}", beside or "of 600"))
        if row.retention is not None:
            tiles.append(("Retention", f"{row.retention:.1f} %", "of the teacher's RSUM"))
    size = next((size for size in report.sizes if size.model == run.name), None)
    if size is not None and size.parameters is not None:
        disk = f"{_three_digits(size.disk)} MiB on disk" if size.disk is not None else ""
        tiles.append(("Parameters", f"{_three_digits(size.parameters / 1e6)} M", disk))
    if size is not None and size.cost is not None:
        image = f"{size.cost.image.ms_batch:.1f} ms an image"
        tiles.append(("Speed", image, f"{size.cost.text.ms_batch:.2f} ms a caption, batches of 64, {size.device}"))
    if run.result and isinstance(run.result.get("seconds"), int | float):
        seconds = float(run.result["seconds"])
        took = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
        tiles.append(("Training", took, _counted(run.config.training.epochs, "epoch")))
    return tiles


def _three_digits(value: float) -> str:
    """`28.3`, `0.0123`: what is small is not rounded to nothing."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
