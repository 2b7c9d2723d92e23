"""The command line: parse, call, print; one file a command. Exit code 2 and one line for anything the user can mend."""

import logging
import os
import sys

from distilvl.cli import (  # noqa: F401
    data,
    demo,
    doctor,
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
_LONGEST = 550  # letters of an error: a screen's worth
_STOPPED = 130  # the exit code of what Ctrl-C stopped
_GO_ON = {"demo", "features", "index", "reproduce", "train"}
_AGAIN = "The same command begins again; what was there before it is as it was."


def main() -> None:
    """Entry point of the `distilvl` command."""
    # One tokenizer process per loader thread is of no use here, and forking after use makes it warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("distilvl").setLevel(logging.INFO)
    try:
        app()
    except DistilvlError as error:
        _tell(str(error))
        sys.exit(2)
    except (OSError, RecursionError) as error:  # where nobody nearer to it has said it better
        logging.getLogger("distilvl").debug("as it was raised", exc_info=error)
        _tell(_of_system(error))
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != _STOPPED:  # Typer makes that of Ctrl-C, and says nothing
            raise
        goes_on = len(sys.argv) > 1 and sys.argv[1] in _GO_ON
        after = "What was finished is kept, and the same command goes on from there." if goes_on else _AGAIN
        sys.stderr.write(f"\nstopped. {after}\n")
        sys.exit(_STOPPED)


def _tell(message: str) -> None:
    words = " ".join(message.split())
    # Control characters as escapes: what a file or a teacher brings must not reach the terminal raw.
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in words)
    sys.stderr.write(
        f"error: {shown if len(shown) <= _LONGEST else shown[: _LONGEST // 2] + ' ... ' + shown[-_LONGEST // 2 :]}\n"
    )


def _of_system(error: OSError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read. Look at the files that the command names."
    where = f"{error.filename}: " if error.filename else ""
    remedy = "Mend that and run the same command again: what is finished is kept."
    return f"{where}{error.strerror or error}. {remedy}"
