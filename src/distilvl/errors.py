"""Errors that a user can act on, and `require` for packages that only some features need."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any


class DistilvlError(Exception):
    """Bad input or a bad environment, never a bug: the message names the item and says what to do.

    The command line prints the message as one line and exits with code 2.

    Args:
        message: what is wrong, with the file, key or id it is about.
        remedy: what the user can do about it; appended to the message.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())


class BadImageError(DistilvlError):
    """An image that is missing or cannot be decoded; `--skip-bad` leaves such records out.

    Args:
        message, remedy: as for `DistilvlError`.
        reason: the phrase by which it is counted where it is left out; the image cannot be decoded, if not given.
    """

    def __init__(self, message: str, remedy: str = "", *, reason: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason


class TooManyPixelsError(BadImageError):
    """An image whose header says that it is larger than the limit."""


class OptionError(DistilvlError):
    """A value that an option, an argument or a field of a request cannot have.

    Args:
        option: its name.
        message: what is wrong.
        remedy: what the user can do about it.
    """

    def __init__(self, option: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.option = option


def one_line(error: BaseException) -> str:
    """What an error says, in one line without its full stop; its type's name where it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def require(*packages: str, extra: str, why: str = "this data set") -> Any:
    """Import a package that comes with an extra of distilvl.

    Args:
        packages: modules; several when the feature needs all of them.
        extra: the extra that brings them.
        why: what needs them, as the error message begins.

    Returns:
        The first of them, typed loosely as it may be absent; the others are not imported.

    Raises:
        DistilvlError: one is not installed, or cannot be imported; it names the command that installs them.
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
        raise DistilvlError(
            f"{why} needs the {word} {' and '.join(missing)}.", f"Install it: pip install 'distilvl[{extra}]'."
        ) from cause
    return first
