"""`distilvl report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from distilvl.cli.shared import MaxPixels, SkipBad, app, clean_stdout


@app.command(epilog="Example: distilvl report runs/demo --out demo.html --markdown demo.md")
def report(
    runs: Annotated[list[Path], Argument(help="Run folders, finished or not; several are compared in one page.")],
    data: Annotated[
        str | None, Option(help="Dataset of the examples and spaces; the first run's own by default.")
    ] = None,
    split: Annotated[str, Option(help="Split of it.")] = "val",
    items: Annotated[int | None, Option(min=2, help="Use only so many images of the split.")] = None,
    examples: Annotated[int, Option(min=0, help="How many retrievals to show.")] = 12,
    timing: Annotated[bool, Option(help="Measure speed and memory of the students.")] = True,
    out: Annotated[Path | None, Option(help="The page; report.html in the first run's folder by default.")] = None,
    markdown: Annotated[Path | None, Option(help="Write the same as Markdown here, without pictures.")] = None,
    as_json: Annotated[Path | None, Option("--json", help="Write the same as JSON here.")] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
) -> None:
    """One offline HTML page about a run, or several side by side: results, curves, examples, spaces, cost, settings."""
    from distilvl.reports.html import write_report
    from distilvl.reports.report import build_report

    with clean_stdout():
        built = build_report(runs, data=data, split=split, items=items, examples=examples, timed=timing,
                             skip_bad=skip_bad)  # fmt: skip
        written = write_report(built, out or runs[0] / "report.html", markdown, as_json)
    echo("written: " + ", ".join(map(str, written)))
