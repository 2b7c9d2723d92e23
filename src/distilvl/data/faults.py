"""Items of a data set that are there but cannot be used: the first is an error, or with `skip_bad` all are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from distilvl.data.left_out import LeftOut
from distilvl.errors import BadImageError, DistilvlError

MALFORMED = "an entry that is not of the list's form"

_T = TypeVar("_T")


class BadItemError(DistilvlError):
    """One row or image that cannot be used, where the rest of its list can.

    Args:
        problem: what is wrong and where, a sentence without its full stop.
        remedy: what to do about it, a sentence.
        name: of the item, as `LeftOut` names it, such as `captions.csv, line 3`.
        reason: the phrase by which `LeftOut` counts it.
    """

    def __init__(self, problem: str, remedy: str, *, name: str, reason: str) -> None:
        super().__init__(f"{problem}.", remedy)
        self.problem, self.remedy, self.name, self.reason = problem, remedy, name, reason


class MissingFileError(BadItemError, BadImageError):
    """An image whose file is not there."""


class Faults:
    """What a reader found that cannot be used.

    Args:
        source: how a message calls the data set.
        skip_bad: whether such items are left out; else `check` raises the first.

    Attributes:
        left_out: all of them, and what was passed over for other reasons.
    """

    def __init__(self, source: str, *, skip_bad: bool) -> None:
        self.source, self.skip_bad = source, skip_bad
        self.left_out = LeftOut()
        self._first: BadItemError | None = None

    def add(self, error: BadItemError) -> None:
        """Take note of an item that cannot be used."""
        self._first = self._first or error
        self.left_out.add(error.reason, error.name)

    def attempt(self, make: Callable[[], _T]) -> _T | None:
        """What `make` gives; nothing, and a note, where it raises a `BadItemError`."""
        try:
            return make()
        except BadItemError as error:
            self.add(error)
            return None

    def check(self, images: int = 0) -> None:
        """Raise the first item that cannot be used, with how many there are of its kind, unless they are left out.

        Args:
            images: how many there are in all, if that is known.

        Raises:
            BadImageError: its file is missing.
            DistilvlError: for any other reason.
        """
        first = self._first
        if first is None or self.skip_bad:
            return
        count = self.left_out.counts[first.reason]
        such = f"{count:,} of {images:,} images of" if images else f"{count:,} such in"
        kind = BadImageError if isinstance(first, BadImageError) else DistilvlError
        raise kind(
            f"{first.problem} ({such} {self.source}).",
            f"{first.remedy.rstrip('.')}, or pass --skip-bad to leave {'it' if count == 1 else 'them'} out.",
        ) from first
