"""The code blocks, inline code, links and headings of README.md and docs/**/*.md.

How to write a block. Python and shell stand in fences labelled `python` and `sh`; output in `text` or `json`, recipes
in `yaml`, anything else under the name of its language; indented blocks are for formulas. The blocks of a page run in
order in a folder of the page's own, shell blocks with the variables that earlier ones set. In that folder lie
photographs, benchmarks and small models, see `things.py`; `$TEACHER` and the like: `workshop.py`. What else a page
presupposes it says in a comment, and what cannot run here says why in a comment directly before its fence:

    <!-- begins with: runs/demo, exported -->
    <!-- not run: needs four GPUs -->

Blocks that are not run are read all the same: every `distilvl` command must exist with its options, and Python must
compile and import what there is.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]

SHELL, PYTHON = "sh", "python"
LANGUAGES = (SHELL, PYTHON, "text", "json", "yaml", "toml", "mermaid")

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_NOT_RUN = re.compile(r"<!--\s*not run\b:?\s*(.*?)\s*-->", re.DOTALL)
_BEGINS_WITH = re.compile(r"<!--\s*begins with:\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced or indented block.

    Attributes:
        page: its file, as seen from the repository's root.
        line: where it begins, from 1.
        language: what its fence is labelled with; empty without a label, None of an indented block.
        text: what is in it.
        not_run: why it is not run; empty where the comment gives no reason, None where there is no comment.
    """

    page: str
    line: int
    language: str | None
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The blocks of a page in order; `text` is another text than the one that it has."""
    found = []
    comment: str | None = None
    for token in _MARKDOWN.parse(read(page) if text is None else text):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.strip() if token.type == "fence" else None
            found.append(Block(page, token.map[0] + 1, language, token.content, comment))
        marked = _NOT_RUN.search(token.content) if token.type == "html_block" else None
        comment = marked.group(1) if marked else None
    return found


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages; of every kind without any."""
    return [block for page in PAGES for block in blocks_of(page) if not languages or block.language in languages]


def docstring_examples() -> list[Block]:
    """The examples in docstrings of the package: what follows a line that imports distilvl, and doctests."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                start = re.search(r"^(>>> |import distilvl|from distilvl)", text, re.MULTILINE)
                if start:
                    code = re.sub(r"^(>>>|\.\.\.) ", "", text[start.start() :], flags=re.MULTILINE)
                    line = getattr(node, "lineno", 1)
                    found.append(Block(path.relative_to(ROOT).as_posix(), line, PYTHON, code, None))
    return found


def begins_with(page: str) -> list[str]:
    """What a page's blocks presuppose, as its comments name it."""
    named = [item for found in _BEGINS_WITH.findall(read(page)) for item in found.split(",")]
    return [item.strip() for item in named]


def inline_code(page: str) -> list[str]:
    """The `code` within the sentences and tables of a page."""
    return [" ".join(token.content.split()) for token in _inline(page) if token.type == "code_inline"]


def links(page: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    targets = (token.attrGet("href") or token.attrGet("src") for token in _inline(page))
    return [str(target) for target in targets if target]


def anchors(page: str) -> set[str]:
    """What `#...` may follow the page's name: its headings as GitHub spells them in an address."""
    names: set[str] = set()
    tokens = _MARKDOWN.parse(read(page))
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            slug = _slug("".join(part.content for part in heading.children or ()))
            numbered = (slug if number == 0 else f"{slug}-{number}" for number in range(100))
            names.add(next(name for name in numbered if name not in names))
    return names


def _inline(page: str) -> Iterator[Token]:
    for token in _MARKDOWN.parse(read(page)):
        yield from token.children or ()


def _slug(heading: str) -> str:
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LNM")
    return "".join(kept).replace(" ", "-")
