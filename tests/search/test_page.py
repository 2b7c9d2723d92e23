"""The page of hits: offline, inlined, escaped."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

from distilvl.cli.search import open_page, render_page
from distilvl.models.encoder import Encoder
from distilvl.search import Index


class _Tags(HTMLParser):
    """Names of all elements and attributes, as a browser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def _index(folder: Path, out: Path, encoder: Encoder) -> Index:
    index = Index.create(out, encoder)
    index.update(folder)
    return index


def test_names_and_queries_cannot_become_markup(tmp_path: Path, encoder: Encoder, paint) -> None:
    paint(tmp_path / "photos" / "<script>alert(1)<" / "script>\" onerror='x'.png", 1)
    index = _index(tmp_path / "photos", tmp_path / "index", encoder)
    page = render_page(index, index.search("red"), '</title><script>"&', Path("<b>.jpg"))
    assert "<script" not in page
    assert "<b>.jpg" not in page
    assert "&lt;/title&gt;&lt;script&gt;" in page
    found = _Tags()
    found.feed(page)
    assert "script" not in found.tags
    assert found.attributes <= {"charset", "class", "content", "href", "http-equiv", "lang", "name", "src", "alt"}


def test_it_asks_for_nothing(photos: Path, tmp_path: Path, encoder: Encoder) -> None:
    index = _index(photos, tmp_path / "index", encoder)
    hits = index.search("red", top=3)
    page = render_page(index, hits, "red", None)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3
    for hit, source in zip(hits, sources, strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(data) == index.thumbnail(hit.id)
    assert all(link.startswith("file:///") for link in re.findall(r'href="([^"]*)"', page))
    assert "http" not in re.sub(r"http-equiv", "", page)
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in page


def test_open_writes_a_private_file_and_starts_the_browser(photos, tmp_path, encoder, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index = _index(photos, tmp_path / "index", encoder)
    page = open_page(index, index.search("red"), "red", None)
    assert opened == [page.as_uri()]
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "</html>" in page.read_text(encoding="utf-8")
