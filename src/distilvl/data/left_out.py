"""What was passed over: counted by reason, with names, so that nothing is left out in silence.

Readers, extraction, training, scoring, the index and the exporters all fill one of these and hand it on: a dataset has
one, a feature store, a run, an evaluation and an index save theirs as JSON, and whatever builds on them adds to it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilvl.errors import BadImageError

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
