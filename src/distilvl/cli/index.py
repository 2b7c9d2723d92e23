"""`distilvl index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distilvl.cli.shared import AsJson, MaxPixels, allow_pixels, app, clean_stdout, print_json, print_left_out

_SHOWN = 10


@app.command(epilog="Example: distilvl index ~/Pictures --model runs/demo --out pictures.index")
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of photographs; those in the folders in it belong to it.")],
    out: Annotated[Path, typer.Option(help="Folder of the index; one that is there is brought up to date.")],
    model: Annotated[
        str | None,
        typer.Option(help="Run, student, exported folder, or whatever --teacher takes; the index's own by default."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Begin anew, as with another model; stopped, it continues.")
    ] = False,
    include_hidden: Annotated[
        bool, typer.Option("--include-hidden", help="Look into hidden folders too, and those of a NAS or a waste bin.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Taken as everywhere; bad images never stop an index, also without it.")
    ] = False,
    max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Make photographs searchable: only new and changed ones are read, deleted ones leave. Stopped, it continues."""
    allow_pixels(max_pixels)
    from distilvl.search import index_folder

    del skip_bad  # an index leaves them out by nature
    with clean_stdout():
        report = index_folder(folder, out, model, rebuild=rebuild, include_hidden=include_hidden)
    if as_json:
        print_json(report.as_dict())
        return
    left_out = f"; left out {len(report.left_out)}" if report.left_out else ""
    typer.echo(
        f"{out}: {report.found} photographs in {folder}: {report.unchanged} unchanged, {report.added} new, "
        f"{report.changed} changed, {report.deleted} deleted{left_out}"
    )
    if report.encoded:
        typer.echo(f"{report.encoded} encoded in {report.seconds:.1f} s, {report.images_per_second:.1f} a second")
    print_left_out(report.left_out)
    for _, reason in report.unreadable[:_SHOWN]:
        typer.echo(reason, err=True)
    if len(report.unreadable) > _SHOWN:
        typer.echo(f"... and {len(report.unreadable) - _SHOWN} more (see unreadable.json in {out})", err=True)
    if report.remembered:
        typer.echo(f"{report.remembered} could not be decoded before and have not changed", err=True)
