"""Errors that a user can act on."""

from __future__ import annotations


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
