"""What was found as one HTML page that needs nothing but itself: thumbnails inlined, no script, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from distilvl._version import __version__
from distilvl.errors import require
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
