"""Errors that a user can act on, and `require` for packages that only some features need."""

import importlib
import re
from importlib.util import find_spec
from typing import Any

# What a line of a terminal and JSON in UTF-8 cannot hold: control characters, and bytes of a name that is no Unicode.
# And marks of the direction of writing, by which `photo<U+202E>gpj.exe` looks like a picture.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class DistilvlError(Exception):
    """Bad input or a bad environment, never a bug; the command line prints it as one line and exits with code 2.

    `message` says what is wrong, with the file, key or id it is about; `remedy`, appended, what the user can do.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.problem = message


class BadImageError(DistilvlError):
    """An image that is missing or cannot be decoded; `--skip-bad` leaves such records out.

    `reason` is the phrase by which it is counted then; the image cannot be decoded, if not given.
    """

    def __init__(self, message: str, remedy: str = "", *, reason: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason


class TooManyPixelsError(BadImageError):
    """An image whose header says that it is larger than the limit."""


class NoCaptionsError(DistilvlError):
    """A folder of images of which none has a caption, and which holds no list."""


class UnavailableError(DistilvlError):
    """Something that another process took away, damaged or is making anew; the same call may succeed later."""


class OptionError(DistilvlError):
    """A value that an option, an argument or a field of a request, named `option`, cannot have."""

    def __init__(self, option: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.option = option


def printable(name: str) -> str:
    """`name` with escapes for control characters, marks of the direction of writing and half surrogate pairs."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, in one line of at most so many letters, without full stop; its type where it says nothing."""
    return " ".join(str(error).split())[:most].rstrip(".") or type(error).__name__


def require(*packages: str, extra: str, why: str = "this data set") -> Any:
    """Import a package that comes with the `extra` of distilvl, for `why`, as the error message begins.

    Returns the first of `packages`, typed loosely as it may be absent; the others are not imported. `DistilvlError`,
    with the command that installs them, where one is not installed or cannot be imported.
    """
    missing = [name for name in packages[1:] if find_spec(name) is None]
    cause: ImportError | None = None
    try:
        first = importlib.import_module(packages[0])
    except ImportError as error:
        missing.insert(0, (error.name or packages[0]).partition(".")[0])
        cause = error
    if missing:
        word = "package" if len(missing) == 1 else "packages"
        remedy = f"Install it: pip install 'distilvl[{extra}]'."
        raise DistilvlError(f"{why} needs the {word} {' and '.join(missing)}.", remedy) from cause
    return first
