"""What was passed over: counted by reason, with names, kept in `left-out.json`,
so that nothing is left out in silence."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeVar

from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.files import storage_error, write_atomically
from distilvl.io.leases import only_writer

NAMED = 10
"""So many names of each reason are printed and saved."""

HELD = 10_000
"""So many names of each reason are held in memory; `data inspect --json` has them all up to here."""

MISSING = "the file is missing"
NO_CAPTION = "no caption"
NO_FEATURES = "the feature store lacks it"
NOT_READ = "cannot be read"
NOT_DECODED = "cannot be decoded"

# What a line of a terminal and JSON in UTF-8 cannot hold: control characters, and bytes of a name that is no Unicode.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_logger = logging.getLogger("distilvl")


@dataclass(eq=True)
class LeftOut:
    """Items that were passed over.

    A reason is a short phrase without a capital or a full stop such as `no caption` or
    `HEIC, which needs pi-heif`; equal phrases are one reason.

    Attributes:
        counts: number of items, by reason, in order of appearance.
        names: the first of each reason, at most `HELD`.
    """

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one item; control characters and half surrogate pairs in its name are written as escapes."""
        name = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)
        self.counts[reason] = self.counts.get(reason, 0) + 1
        held = self.names.setdefault(reason, [])
        if len(held) < HELD:
            held.append(name)

    def update(self, other: LeftOut) -> None:
        """Count all that `other` counts."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            held = self.names.setdefault(reason, [])
            held.extend(other.names.get(reason, [])[: HELD - len(held)])

    def __add__(self, other: LeftOut) -> LeftOut:
        both = LeftOut()
        both.update(self)
        both.update(other)
        return both

    def add_bad(self, error: BadImageError, name: str) -> None:
        """Count an image for the reason that `error` gives."""
        self.add(error.reason or NOT_DECODED, name)

    def __or__(self, other: LeftOut) -> LeftOut:
        """What either counts, once: items of one reason and name are one, as far as names are held."""
        both = self + LeftOut()
        if other is self:
            return both
        for reason, count in other.counts.items():
            known = both.names.get(reason, [])
            seen = set(known)
            fresh = [name for name in other.names.get(reason, []) if name not in seen]
            shared = len(other.names.get(reason, [])) - len(fresh)
            both.counts[reason] = both.counts.get(reason, 0) + count - shared
            both.names[reason] = [*known, *fresh][:HELD]
        return both

    def __len__(self) -> int:
        return sum(self.counts.values())

    def items(self) -> Iterator[tuple[str, str]]:
        """Name and reason of each item that is held."""
        return ((name, reason) for reason, names in self.names.items() for name in names)

    def as_dict(self, named: int = NAMED) -> dict[str, Any]:
        """In terms of JSON: `{"total": 3, "reasons": {"no caption": {"count": 3, "names": [... at most ten]}}}`."""
        reasons = {
            reason: {"count": count, "names": self.names[reason][:named]} for reason, count in self.counts.items()
        }
        return {"total": len(self), "reasons": reasons}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> LeftOut:
        """What `as_dict` gave; the names beyond the tenth are gone.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not of that form.
        """
        found = cls()
        for reason, one in saved["reasons"].items():
            found.counts[str(reason)] = int(one["count"])
            found.names[str(reason)] = [str(name) for name in one["names"]]
        return found

    def lines(self) -> list[str]:
        """One line a reason: `2 (no caption): a.jpg, b.jpg`; the names are cut after the tenth."""
        return [
            f"{count:,} ({reason}): {', '.join(self.names[reason][:NAMED])}"
            + (f" and {count - NAMED:,} more" if count > NAMED else "")
            for reason, count in self.counts.items()
        ]

    def log(self, where: str) -> None:
        """A warning line a reason, `where` being what it was left out of; nothing if there is nothing."""
        for line in self.lines():
            _logger.warning("%s: left out %s", where, line)


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


LEFT_OUT_NAME = "left-out.json"


Sources = dict[str, LeftOut]
"""What was left out of each source, by what the command called it."""


def source_name(data: str, splits: Sequence[str] = ()) -> str:
    """What a file calls `data` of which only `splits` were read."""
    return f"{data} ({', '.join(splits)})" if splits else data


def all_left_out(sources: Mapping[str, LeftOut]) -> LeftOut:
    """What was left out of any of `sources`, each item once."""
    return reduce(or_, sources.values(), LeftOut())


def read_left_out(folder: Path) -> Sources:
    """What the file in `folder` tells; nothing where there is none, and nothing but a warning of a damaged one."""
    path = folder / LEFT_OUT_NAME
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): LeftOut.from_dict(one) for name, one in saved["sources"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _logger.warning("%s is damaged (%s): what was left out before is not known", path, error)
        return {}


def write_left_out(folder: Path, sources: Mapping[str, LeftOut]) -> None:
    """Make the file say exactly `sources`; where nothing was left out there is none. Nothing new, nothing written.

    Raises:
        DistilvlError: the disk does not take it.
    """
    path = folder / LEFT_OUT_NAME
    told = {name: one for name, one in sorted(sources.items()) if one}
    if not told:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error
    elif told != read_left_out(folder):
        saved = {"sources": {name: one.as_dict(HELD) for name, one in told.items()}}
        write_atomically(path, (json.dumps(saved, indent=1) + "\n").encode("ascii"))


def note_left_out(folder: Path, source: str, left_out: LeftOut) -> None:
    """Make the file in `folder` say `left_out` of `source`, and of others what it said; several processes may do so.

    Raises:
        DistilvlError: the disk does not take it.
    """
    known = read_left_out(folder)
    if known.get(source, LeftOut()) == left_out:
        return
    with only_writer(folder):
        write_left_out(folder, {**read_left_out(folder), source: left_out})
