"""The command line: parse, call, print; one file a command. Exit code 2 and one line for anything the user can mend."""

import logging
import os
import sys

from distilvl.cli import (  # noqa: F401
    data,
    demo,
    embed,
    evaluate,
    export,
    features,
    fit,
    index,
    report,
    reproduce,
    search,
    serve,
    towers,
    train,
)
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
        words = " ".join(str(error).split())
        # Control characters as escapes: what a file or a teacher brings must not reach the terminal raw.
        shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)
        sys.stderr.write(f"error: {''.join(shown)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues.\n")
        sys.exit(130)
