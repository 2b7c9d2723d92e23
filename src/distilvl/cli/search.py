"""`distilvl search`."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from markupsafe import Markup

from distilvl._version import __version__
from distilvl.cli.shared import AsJson, MaxPixels, allow_pixels, app, clean_stdout, print_json
from distilvl.errors import OptionError, require

if TYPE_CHECKING:
    from distilvl.search.index import Index
    from distilvl.search.table import Hit

_COPIES_SHOWN = 100


def open_page(index: Index, hits: Sequence[Hit], text: str | None, image: Path | None) -> Path:
    """Write the page to a file of its own among the temporary ones, readable only by the user, and open the browser.

    Returns:
        The file.
    """
    page = render_page(index, hits, text, image)
    handle, name = tempfile.mkstemp(prefix="distilvl-search-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(page)
    webbrowser.open(Path(name).as_uri())
    return Path(name)


def render_page(index: Index, hits: Sequence[Hit], text: str | None, image: Path | None) -> str:
    """The page of `hits`, best first; names and the query are escaped.

    Raises:
        DistilvlError: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="search", why="the page")
    loader = jinja2.PackageLoader("distilvl.search")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = loader.get_source(environment, "results.css")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page: str = environment.get_template("results.html.j2").render(
        query=" and ".join([f"“{text}”"] * (text is not None) + [str(image)] * (image is not None)),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        hits=[(hit, _inline(index.thumbnail(hit.id)), [Path(path) for path in hit.paths]) for hit in hits],
        shown=_COPIES_SHOWN,
        photos=len(index),
        left_out=index.left_out.lines(),
        version=__version__,
    )
    return page


def _inline(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


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
