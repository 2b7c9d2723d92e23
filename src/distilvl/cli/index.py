"""`distilvl index`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option, echo

from distilvl.cli.shared import AsJson, MaxPixels, app, clean_stdout, print_json, print_left_out

if TYPE_CHECKING:
    from distilvl.search.about import UpdateReport

_SHOWN = 10


@app.command(epilog="Example: distilvl index ~/Pictures --model runs/demo --out pictures.index")
def index(
    folder: Annotated[Path, Argument(help="Folder of photographs; those in the folders in it belong to it.")],
    out: Annotated[Path, Option(help="Folder of the index; one that is there is brought up to date.")],
    model: Annotated[
        str | None,
        Option(help="Run, student, exported folder, or whatever --teacher takes; the index's own by default."),
    ] = None,
    features: Annotated[
        str | None,
        Option(
            help="Store of the model's teacher: photographs that it holds get the teacher's embedding, others the "
            "model's; the index's own by default."
        ),
    ] = None,
    rebuild: Annotated[
        bool, Option("--rebuild", help="Begin anew, as with another model; stopped, it continues.")
    ] = False,
    forget: Annotated[
        bool,
        Option(
            "--forget", help="Let go of FOLDER, one of the indexed ones, and of its photographs; no file is touched."
        ),
    ] = False,
    include_hidden: Annotated[
        bool, Option("--include-hidden", help="Look into hidden folders too, and those of a NAS or a waste bin.")
    ] = False,
    skip_bad: Annotated[
        bool, Option("--skip-bad", help="Taken as everywhere; bad images never stop an index, also without it.")
    ] = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Make photographs searchable: only new and changed ones are read, deleted ones leave. Stopped, it continues."""
    from distilvl.search import Index, index_folder

    del skip_bad  # an index leaves them out by nature
    if forget:
        if model is not None or features is not None or rebuild or include_hidden:
            raise BadParameter("It takes FOLDER and --out alone.", param_hint="--forget")
        with clean_stdout():
            opened = Index.open(out)
            gone = opened.forget(folder)
        if as_json:
            print_json({"deleted": gone, "total": len(opened), "folders": opened.folders})
        else:
            echo(f"{out}: {gone} photographs of {folder} forgotten, {len(opened)} in the index")
        return
    with clean_stdout():
        report = index_folder(folder, out, model, rebuild=rebuild, include_hidden=include_hidden, features=features)
    if as_json:
        print_json(report.as_dict())
        return
    print_index(report, folder, out)


def print_index(report: UpdateReport, folder: Path, out: Path) -> None:
    """What was made searchable, and what was left out."""
    from distilvl.search.about import About

    left_out = f"; left out {len(report.left_out)}" if report.left_out else ""
    counts = f"{report.unchanged} unchanged, {report.added} new, {report.changed} changed, {report.deleted} deleted"
    echo(f"{out}: {report.found} photographs in {folder}: {counts}{left_out}")
    if report.encoded:
        echo(f"{report.encoded} encoded in {report.seconds:.1f} s, {report.images_per_second:.1f} a second")
    if report.total_stored:
        own = report.total - report.total_stored
        echo(f"{report.total_stored} in the index have the teacher's stored embedding, {own} the model's own")
    print_left_out(report.left_out)
    for _, reason in report.unreadable[:_SHOWN]:
        echo(reason, err=True)
    if len(report.unreadable) > _SHOWN:
        where = out / About.load(out).home
        echo(f"... and {len(report.unreadable) - _SHOWN} more (see unreadable.json in {where})", err=True)
    if report.remembered:
        echo(f"{report.remembered} could not be decoded before and have not changed", err=True)
