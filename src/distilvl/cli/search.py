"""`distilvl search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distilvl.cli.shared import AsJson, MaxPixels, allow_pixels, app, clean_stdout, print_json
from distilvl.errors import OptionError

if TYPE_CHECKING:
    from distilvl.search import Hit

_COPIES_NAMED = 3


@app.command(epilog='Example: distilvl search pictures.index "a dog on a beach" --since 2021 --folder holidays --open')
def search(
    index: Annotated[Path, typer.Argument(help="Folder that `distilvl index` wrote.")],
    text: Annotated[str | None, typer.Argument(help="What the photographs should show.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture they should be like.")] = None,
    weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of text and picture together, the text's share; a half if not given."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    folder: Annotated[
        str | None,
        typer.Option(help="Only below this folder: absolute, or as seen from the indexed folder."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only taken in this year, month, day or second (2021, 2021-07, ...) or later."),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only taken in it or earlier.")] = None,
    copies: Annotated[bool, typer.Option("--copies", help="Show each copy of a picture by itself.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the index's model is now, if it has moved.")] = None,
    max_pixels: MaxPixels = None,
    as_json: AsJson = False,
    show: Annotated[bool, typer.Option("--open", help="Show them in the browser: one page, no server.")] = False,
) -> None:
    """Find photographs by what they show, by a picture they are like, or by both."""
    allow_pixels(max_pixels)
    from distilvl.search import Index

    _require_words(text)
    with clean_stdout():
        found = Index.open(index, model)
        hits = found.search(text, image, weight=weight, top=top, folder=folder, since=since, until=until, copies=copies)
    if as_json:
        print_json(
            {"hits": [hit.as_dict() for hit in hits], "photos": len(found), "left_out": found.left_out.as_dict()}
        )
    else:
        for hit in hits:
            typer.echo(f"{hit.score:6.3f}  {hit.date:%Y-%m-%d}  {hit.path}{_also(hit)}")
        if not hits:
            typer.echo("nothing meets these conditions", err=True)
    if show:
        from distilvl.search.page import open_page

        with clean_stdout():
            page = open_page(found, hits, text, image)
        typer.echo(f"written: {page}", err=True)


def _require_words(text: str | None) -> None:
    """A picture's file given as the text would be searched for by the letters of its name."""
    if text is not None and Path(text).suffix and _is_file(text):
        raise OptionError("text", f"{text} is a file, not what a photograph shows.", f"Write --image {text}.")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a name may be, or with a NUL
        return False


def _also(hit: Hit) -> str:
    """The copies of a hit, if it has some."""
    others = hit.paths[1:]
    if not others:
        return ""
    more = f" and {len(others) - _COPIES_NAMED:,} more" if len(others) > _COPIES_NAMED else ""
    return f"  ({hit.copies:,} copies, also {', '.join(others[:_COPIES_NAMED])}{more})"
