"""The command line: parse, call, print; one file a command. Exit code 2 and one line for anything the user can mend."""

from __future__ import annotations

import logging
import os
import sys

from distilvl.cli import data, demo, embed, evaluate, export, features, index, report, reproduce, search, serve, train  # noqa: F401
from distilvl.cli.shared import app
from distilvl.errors import DistilvlError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the `distilvl` command."""
    # One tokenizer process per loader thread is of no use here, and forking after use makes it warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("distilvl").setLevel(logging.INFO)
    try:
        app()
    except DistilvlError as error:
        sys.stderr.write(f"error: {_printable(' '.join(str(error).split()))}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues.\n")
        sys.exit(130)


def _printable(text: str) -> str:
    """`text` with control characters as escapes: what a file or a teacher brings must not reach the terminal raw."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
