"""`distilvl search`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from markupsafe import Markup
from typer import Argument, BadParameter, Option, echo

from distilvl._version import __version__
from distilvl.cli.shared import AsJson, MaxPixels, app, clean_stdout, print_json
from distilvl.errors import OptionError, printable, require

if TYPE_CHECKING:
    from distilvl.search.index import Index
    from distilvl.search.table import Hit

_COPIES_SHOWN, _COPIES_NAMED = 100, 3


def open_page(
    index: Index, hits: Sequence[Hit], text: str | None, image: Path | None, minus: str | None = None
) -> Path:
    """Write the page to a temporary file that only the user can read, open the browser, and return the file."""
    page = render_page(index, hits, text, image, minus)
    handle, name = tempfile.mkstemp(prefix="distilvl-search-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(page)
    webbrowser.open(Path(name).as_uri())
    return Path(name)


def render_page(
    index: Index, hits: Sequence[Hit], text: str | None, image: Path | None, minus: str | None = None
) -> str:
    """The page of `hits`, best first; names and the query are escaped. `DistilvlError` without jinja2."""
    jinja2 = require("jinja2", extra="search", why="the page")
    loader = jinja2.PackageLoader("distilvl.search")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["printable"] = lambda path: printable(str(path))
    style = loader.get_source(environment, "results.css")[0]
    digest = _base64(hashlib.sha256(style.encode("utf-8")).digest())
    page: str = environment.get_template("results.html.j2").render(
        query=" and ".join([f"“{text}”"] * (text is not None) + [str(image)] * (image is not None))
        + (f" without “{minus}”" if minus is not None else ""),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        hits=[(hit, _base64(index.thumbnail(hit.id)), [Path(path) for path in hit.paths]) for hit in hits],
        shown=_COPIES_SHOWN, photos=len(index), left_out=index.left_out.lines(), version=__version__,
    )  # fmt: skip
    return page


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@app.command(epilog='Example: distilvl search pictures.index "a dog on a beach" --since 2021 --folder holidays --open')
def search(
    index: Annotated[Path, Argument(help="Folder that `distilvl index` wrote.")],
    text: Annotated[str | None, Argument(help="What the photographs should show.")] = None,
    image: Annotated[Path | None, Option(help="A picture they should be like.")] = None,
    minus: Annotated[str | None, Option(help="What they should not show.")] = None,
    weight: Annotated[
        float | None, Option(min=0, max=1, help="Of text and picture together, the text's share; a half if not given.")
    ] = None,
    top: Annotated[int, Option(min=1, help="How many.")] = 10,
    folder: Annotated[
        str | None, Option(help="Only below this folder: absolute, or as seen from the indexed folder.")
    ] = None,
    since: Annotated[
        str | None, Option(help="Only taken in this year, month, day or second (2021, 2021-07, ...) or later.")
    ] = None,
    until: Annotated[str | None, Option(help="Only taken in it or earlier.")] = None,
    min_score: Annotated[
        float | None, Option(min=-1, max=1, help="Only those at least so similar; what scores mean, the model decides.")
    ] = None,
    copies: Annotated[bool, Option("--copies", help="Show each copy of a picture by itself.")] = False,
    model: Annotated[str | None, Option(help="Where the index's model is now, if it has moved.")] = None,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
    paths: Annotated[bool, Option("--paths", help="Print paths alone, a line each.")] = False,
    null: Annotated[bool, Option("--null", help="The same for `xargs -0`: a NUL after each path.")] = False,
    show: Annotated[bool, Option("--open", help="Show them in the browser: one page, no server.")] = False,
) -> None:
    """Find photographs by what they show, by a picture they are like, or by both."""
    from distilvl.search import Index

    _require_words(text)
    if as_json and (paths or null):
        raise BadParameter("One of --json, --paths and --null.", param_hint="--json")
    with clean_stdout():
        found = Index.open(index, model)
        hits = found.search(
            text, image, minus=minus, weight=weight, top=top, folder=folder, since=since, until=until, copies=copies
        )
        hits = [hit for hit in hits if min_score is None or hit.score >= min_score]
    if as_json:
        about = {"photos": len(found), "left_out": found.left_out.as_dict()}
        print_json({"hits": [hit.as_dict() for hit in hits]} | about)
    elif paths or null:
        # As the disk has them, bytes and all, for other programs.
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(hit.path) + (b"\0" if null else b"\n") for hit in hits))
    else:
        for hit in hits:
            echo(f"{hit.score:6.3f}  {hit.date:%Y-%m-%d}  {printable(hit.path)}{_also(hit)}")
        if not hits:
            echo("nothing meets these conditions", err=True)
    if show:
        with clean_stdout():
            page = open_page(found, hits, text, image, minus)
        echo(f"written: {page}", err=True)


def _require_words(text: str | None) -> None:
    """A picture's file given as the text would be searched for by the letters of its name."""
    with contextlib.suppress(OSError, ValueError):  # longer than a name may be, or with a NUL
        if text is not None and Path(text).suffix and Path(text).is_file():
            raise OptionError("text", f"{text} is a file, not what a photograph shows.", f"Write --image {text}.")


def _also(hit: Hit) -> str:
    """The copies of a hit, if it has some."""
    others = hit.paths[1:]
    if not others:
        return ""
    more = f" and {len(others) - _COPIES_NAMED:,} more" if len(others) > _COPIES_NAMED else ""
    return f"  ({hit.copies:,} copies, also {', '.join(map(printable, others[:_COPIES_NAMED]))}{more})"
