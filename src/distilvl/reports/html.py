"""The report as one HTML page that needs nothing but itself, and the files of a report.

Its content security policy keeps it from asking for anything, and anything that slipped into it from running.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distilvl._version import __version__
from distilvl.config import Config
from distilvl.io.files import make_folder, write_atomically
from distilvl.reports.charts import Chart
from distilvl.reports.drawing import HEIGHT, LEFT, RIGHT, WIDTH, flat_view, gap_view, line_chart, style_of
from distilvl.reports.examples import EXPLAINED
from distilvl.reports.report import Report, as_dict, config_text, environment_rows
from distilvl.reports.run import Run
from distilvl.reports.tables import CROSS_NOTE, chart_table, published_note, render_markdown, report_tables

_POLICY = "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"


def write_report(report: Report, html: Path, markdown: Path | None = None, as_json: Path | None = None) -> list[Path]:
    """Write the page, and the other forms where a path is given; returns what was written.

    `DistilvlError`: a path that cannot be written; matplotlib is missing.
    """
    texts = {html: render_html(report)}
    if markdown is not None:
        texts[markdown] = render_markdown(report)
    if as_json is not None:
        texts[as_json] = json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for path, text in texts.items():
        make_folder(path.parent)
        # Captions may hold lone surrogates, which UTF-8 has no bytes for.
        write_atomically(path, text.encode("utf-8", errors="replace"))
    return list(texts)


def render_html(report: Report) -> str:
    """The whole page; every text that comes from outside is escaped."""
    loader = PackageLoader("distilvl.reports")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    spaces = [(space, flat_view(space, f"flat{k}"), gap_view(space, report.spaces, f"gap{k}"))
              for k, space in enumerate(report.spaces)]  # fmt: skip
    charts = {f"chart{k}": chart for k, chart in enumerate(c for group in report.charts for c in group.charts)}
    names = iter(charts)
    return environment.get_template("report.html.j2").render(
        report=report, version=__version__, style=Markup(style), script=Markup(script),
        policy=_POLICY.format(_hash(style), _hash(script)),
        data=inline_json(_data(report, charts)),
        tiles=[(run.name, tiles) for run in report.runs if (tiles := _tiles(report, run))],
        tables=report_tables(report),
        groups=[(one.title, one.note, [_drawn(next(names), chart) for chart in one.charts]) for one in report.charts],
        explained={kind: EXPLAINED[kind] for kind in EXPLAINED if any(e.kind == kind for e in report.examples)},
        spaces=spaces, cross_note=CROSS_NOTE, published_note=published_note(report.published[1]),
        config_text=config_text, environment_rows=environment_rows,
    )  # fmt: skip


def inline_json(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever strings it holds; `allow_nan` off, as browsers need it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _drawn(name: str, chart: Chart) -> dict[str, Any]:
    legend = [(style_of(chart, k), series) for k, series in enumerate(chart.series)]
    return {"name": name, "chart": chart, "svg": line_chart(chart, name), "legend": legend, "table": chart_table(chart)}


def _data(report: Report, charts: dict[str, Chart]) -> dict[str, Any]:
    """What the script needs: points of the spaces, and the charts' values for reading them off."""
    values = {}
    for name, chart in charts.items():
        lines = [(series.name, series.points) for series in chart.series if not series.level]
        places = sorted({x for _, points in lines for x, _ in points})
        values[name] = {"x": chart.x, "places": places, "low": chart.start, "lines": lines}
    frame = {"left": LEFT, "right": WIDTH - RIGHT, "width": WIDTH, "height": HEIGHT}
    return {"spaces": [space.coordinates() for space in report.spaces], "charts": values, "frame": frame}


def _tiles(report: Report, run: Run) -> list[tuple[str, str, str]]:
    """A run in a few figures: label, figure, and what it is compared with."""
    row = next((row for row in (*report.headline, *report.results) if row.name == run.name), None)
    tiles = []
    if row is not None:
        beside = "of 600" if row.teacher_rsum is None else f"the teacher has {row.teacher_rsum:.1f}"
        tiles.append(("RSUM", f"{row.rsum:.1f}", beside))
        if row.retention is not None:
            tiles.append(("Retention", f"{row.retention:.1f} %", "of the teacher's RSUM"))
    for size in [size for size in report.sizes if size.model == run.name][:1]:
        if size.parameters is not None:
            disk = f"{_three_digits(size.disk)} MiB on disk" if size.disk is not None else ""
            tiles.append(("Parameters", f"{_three_digits(size.parameters / 1e6)} M", disk))
        if (cost := size.cost) is not None:
            text = f"{cost.text.ms_batch:.2f} ms a caption, batches of 64, {size.device}"
            tiles.append(("Speed", f"{cost.image.ms_batch:.1f} ms an image", text))
    if run.result and isinstance(run.result.get("seconds"), int | float):
        seconds, how = float(run.result["seconds"]), "closed form"
        took = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
        if isinstance(run.config, Config):
            epochs = run.config.training.epochs
            how = f"{epochs} epoch{'s' * (epochs != 1)}"
        tiles.append(("Training", took, how))
    return tiles


def _three_digits(value: float) -> str:
    """`28.3`, `0.0123`: what is small is not rounded to nothing."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"
