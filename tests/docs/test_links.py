"""Links of README.md, CHANGELOG.md and docs/ lead to files and headings that are there, and so do paths in the text."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from blocks import PAGES, ROOT, anchors, inline_code, links

OURS = ("src", "tests", "docs", "scripts", "benchmarks", "examples")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    missing = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.resolve().relative_to(ROOT).as_posix())):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_files_that_the_text_names_exist(page: str) -> None:
    words = [word for code in inline_code(page) for word in code.split()]
    named = [word for word in words if re.fullmatch(rf"(?:{'|'.join(OURS)})/[\w./-]+", word)]
    assert [name for name in named if not (ROOT / Path(name)).exists()] == []


def test_headings_are_spelt_as_github_spells_them() -> None:
    assert {"how-well-it-retrieves", "what-is-where"} & anchors("README.md") == {"what-is-where"}
    assert "crops-augmentation-with-the-teachers-features" in anchors("docs/features.md")
