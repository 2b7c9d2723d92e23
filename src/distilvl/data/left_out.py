"""What was left out: counted by reason, with names, and kept in `left-out.json`; and the faults that readers find."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from types import TracebackType
from typing import Any

from distilvl.errors import BadImageError, DistilvlError, printable
from distilvl.io.files import storage_error, write_atomically
from distilvl.io.leases import only_writer

NAMED, HELD = 10, 10_000
"""So many names of each reason are printed and saved, and held in memory; `data inspect --json` has all of those."""

LEFT_OUT_NAME = "left-out.json"

MISSING = "the file is missing"
NO_CAPTION = "no caption"
NO_FEATURES = "the feature store lacks it"
NOT_READ = "cannot be read"
NOT_DECODED = "cannot be decoded"
MALFORMED = "an entry that is not of the list's form"

TOO_LARGE = "a file too large for a picture"

_logger = logging.getLogger("distilvl")


@dataclass
class LeftOut:
    """Items that could not be used, by reason: a short phrase such as `no caption`."""

    counts: dict[str, int] = field(default_factory=dict)  # number of items, in order of appearance
    names: dict[str, list[str]] = field(default_factory=dict)  # the first of each reason, at most `HELD`

    def add(self, reason: str, name: str) -> None:
        """Count one item, its name as `printable`."""
        self._count(reason, 1, [printable(name)])

    def update(self, other: LeftOut) -> None:
        """Count all that `other` counts."""
        for reason, count in other.counts.items():
            self._count(reason, count, other.names.get(reason, []))

    def _count(self, reason: str, count: int, names: Sequence[str]) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        held = self.names.setdefault(reason, [])
        held.extend(names[: max(0, HELD - len(held))])

    def __or__(self, other: LeftOut) -> LeftOut:
        """What either counts, once: items of one reason and name are one, as far as names are held."""
        both = LeftOut()
        both.update(self)
        for reason, count in other.counts.items() if other is not self else ():
            names, seen = other.names.get(reason, []), set(both.names.get(reason, []))
            fresh = [name for name in names if name not in seen]
            both._count(reason, count - len(names) + len(fresh), fresh)
        return both

    def __len__(self) -> int:
        return sum(self.counts.values())

    def items(self) -> Iterator[tuple[str, str]]:
        """Name and reason of each item that is held."""
        return ((name, reason) for reason, names in self.names.items() for name in names)

    def as_dict(self, named: int = NAMED) -> dict[str, Any]:
        """In terms of JSON: `{"total": 3, "reasons": {"no caption": {"count": 3, "names": [... at most ten]}}}`."""
        reasons = {key: {"count": count, "names": self.names[key][:named]} for key, count in self.counts.items()}
        return {"total": len(self), "reasons": reasons}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> LeftOut:
        """What `as_dict` gave; LookupError, TypeError, ValueError or AttributeError where it is not of that form."""
        found = cls()
        for reason, one in saved["reasons"].items():
            found.counts[str(reason)] = int(one["count"])
            found.names[str(reason)] = [str(name) for name in one["names"]]
        return found

    def lines(self) -> list[str]:
        """One line a reason: `2 (no caption): a.jpg, b.jpg`; the names are cut after the tenth."""
        lines = []
        for reason, count in self.counts.items():
            more = f" and {count - NAMED:,} more" if count > NAMED else ""
            lines.append(f"{count:,} ({reason}): {', '.join(self.names[reason][:NAMED])}{more}")
        return lines

    def log(self, where: str) -> None:
        """A warning line a reason, `where` being what it was left out of; nothing if there is nothing."""
        for line in self.lines():
            _logger.warning("%s: left out %s", where, line)


class BadItemError(DistilvlError):
    """One row or image that cannot be used, where the rest of its list can; `LeftOut` counts it by name and reason."""

    def __init__(self, problem: str, remedy: str, name: str, reason: str) -> None:
        super().__init__(f"{problem}.", remedy)  # `problem` has no full stop, as the number of such may follow it
        self.problem, self.remedy, self.name, self.reason = problem, remedy, name, reason


class MissingFileError(BadItemError, BadImageError):
    """An image whose file is not there."""


class Faults:
    """What a reader of `source` cannot use; as a context, it notes a `BadItemError` raised within, and goes on."""

    def __init__(self, source: str, *, skip_bad: bool) -> None:
        self.source, self.skip_bad = source, skip_bad
        self.left_out = LeftOut()  # all of them, and what was left out for other reasons
        self._first: BadItemError | None = None

    def add(self, error: BadItemError) -> None:
        """Take note of an item that cannot be used."""
        self._first = self._first or error
        self.left_out.add(error.reason, error.name)

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, BadItemError):
            self.add(error)
        return isinstance(error, BadItemError)

    def check(self, images: int = 0) -> None:
        """Raise the first fault with the number of such, unless `skip_bad`; a missing file is a `BadImageError`."""
        if self._first is None or self.skip_bad:
            return
        count, remedy = self.left_out.counts[self._first.reason], self._first.remedy.rstrip(".")
        such = f"{count:,} of {images:,} images of" if images else f"{count:,} such in"
        problem = f"{self._first.problem} ({such} {self.source})."
        kind = BadImageError if isinstance(self._first, BadImageError) else DistilvlError
        them = "it" if count == 1 else "them"
        raise kind(problem, f"{remedy}, or pass --skip-bad to leave {them} out.") from self._first


Sources = dict[str, LeftOut]  # what was left out of each source, by what the command called it


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
    """Make the file say exactly `sources`, with no file where nothing was left out; `DistilvlError` if that fails."""
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
    """Make the file in `folder` say `left_out` of `source`, and of others what it said; several processes may do so."""
    if read_left_out(folder).get(source, LeftOut()) != left_out:
        with only_writer(folder):
            write_left_out(folder, {**read_left_out(folder), source: left_out})
