"""Untrusted text in Markdown: captions, file names and settings must not become markup."""

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*_\[\]#~$!])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: str) -> str:
    """`text` on one line, such that Markdown shows it as it is; a pipe is left to the table it may stand in."""
    marked = _MARKUP.sub(r"\\\1", "".join(_HTML.get(letter, letter) for letter in one_line(text)))
    # What would begin a list or underline a heading at the start of a line; numbers such as -4.0 stay as they are.
    marked = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", marked)
    marked = re.sub(r"^([-+])(?=\s|$)|^([-=])(?=[-=]*$)", r"\\\1\2", marked)
    return re.sub(r"(?i)\b(https?|ftp|www)(:|\.)", r"\1&#8203;\2", marked)


def fenced(text: str, language: str = "") -> str:
    """`text` as a code block whose fence is longer than any in it."""
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def code(text: str) -> str:
    """`text` as inline code, whatever backticks it holds."""
    line = one_line(text)
    fence = "`" * (_longest(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _longest(text: str) -> int:
    """Of the runs of backticks."""
    return max(map(len, re.findall(r"`+", text)), default=0)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A Markdown table; pipes and line breaks in the cells are made harmless.

    Columns named in `words` stand left, as the first always does; the others hold numbers.
    """
    lines = [header, ["---" if name in (header[0], *words) else "---:" for name in header], *rows]
    return "\n".join("| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def one_line(text: str) -> str:
    """`text` with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())
