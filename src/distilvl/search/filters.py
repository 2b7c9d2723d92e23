"""What an index passed over: of each folder that it covers, in its `left-out.json`; and folders that cannot be listed.

Names are absolute paths, so that a folder within another is told of once.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path, PurePath, PurePosixPath

from distilvl.data.folders import UNREADABLE_FOLDER
from distilvl.data.left_out import LeftOut, Sources, read_left_out, write_left_out
from distilvl.data.listing import on_disk, spellings
from distilvl.errors import DistilvlError, OptionError

_REMEDY = "Write YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS]."
_DATE = re.compile(r"(\d{4})(?:([-/.:])(\d{1,2})(?:\2(\d{1,2}))?|(\d\d)(\d\d))?", re.A)
_TIME = re.compile(r"[T\s]\s*(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?", re.A | re.I)
_ZONE = re.compile(r"[T\s]\s*[\d:.,]+\s*(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)", re.A | re.I)
_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_PATH = 4096  # of Linux; what is longer would only cost time


def quoted(text: str) -> str:
    """`text` as a string of SQL.

    Raises:
        OptionError: a NUL, or half of a surrogate pair, which no stored text has.
    """
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise OptionError("folder", f"{text[:100]!r} is not text that can be searched for.", "Check the name.")
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """Rows whose `column` is one of `values`, of which there must be at least one."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def has_id(key: str) -> str:
    """Rows of that content.

    Raises:
        OptionError: not 32 hex digits.
    """
    if not _ID.fullmatch(key):
        raise OptionError(
            "like", f"{key[:100]!r} is not the id of a photograph.", "An id has 32 hex digits, as in a hit."
        )
    return f"id = {quoted(key)}"


def below(folder: str, roots: Iterable[str]) -> str:
    """Rows of files in a folder or in folders in it, however accents in its name are composed.

    Args:
        folder: absolute, or relative to any of `roots`.
        roots: the indexed folders, absolute, with `/`.

    Raises:
        OptionError: a name that no folder can have, a relative one with `..`, or a link that leads to itself.
    """
    quoted(folder)  # before the disk is asked: it takes neither a NUL nor half of a surrogate pair
    if len(folder) > _LONGEST_PATH:
        raise OptionError("folder", f"the folder's name has {len(folder)} characters.", "Check the name.")
    path = PurePath(folder)
    if path.is_absolute():
        tops = _names(folder)
    else:
        parts = [part for part in path.parts if part != "."]
        if ".." in parts:
            raise OptionError(
                "folder", f"the folder {folder!r} has '..' in it.", "Name it from the indexed folder down."
            )
        tops = ["/".join([root.rstrip("/"), *parts]) for root in roots]
    if not tops:
        return "FALSE"
    # `starts_with` has no wild cards, unlike LIKE.
    starts = dict.fromkeys(spelling for top in tops for spelling in spellings(prefix(top)))
    return "(" + " OR ".join(f"starts_with(path, {quoted(start)})" for start in starts) + ")"


def _names(folder: str) -> list[str]:
    """An absolute folder as an index may know it: the links above the indexed folder followed, those in it not."""
    path = PurePath(os.path.abspath(on_disk(Path(folder))))  # noqa: PTH100 - Path.resolve follows links
    names, real = [path.as_posix()], PurePath(path.anchor)
    for number, part in enumerate(path.parts[1:], start=2):
        real = real / part
        if _is_link(real):
            real = PurePath(os.path.realpath(real))
            if _is_link(real):
                message = f"the folder {folder} is behind a link that leads to itself."
                raise OptionError("folder", message, "Check the path.")
            names.append(real.joinpath(*path.parts[number:]).as_posix())
    return names


def _is_link(path: PurePath) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises where a name is too long


def prefix(folder: str) -> str:
    """What the paths in a folder begin with."""
    return folder.rstrip("/") + "/"


def between(since: str | date | None, until: str | date | None) -> list[str]:
    """Conditions on `date`: not before the beginning of `since`, not after the end of `until`.

    Args:
        since: a date or time, or as much of one as matters (`2021`, `2021-07`); text or Python's. Between the numbers
            of a date may be `-`, `/`, `.` or `:`, or, in one of eight digits, nothing.
        until: the same.

    Raises:
        OptionError: not a date, a time of some zone (photographs' times have none), or an end before the beginning.
    """
    first = None if since is None else _period("since", since)[0]
    last = None if until is None else _period("until", until)[1]
    if first is not None and last is not None and first > last:
        raise OptionError("until", f"there is no time since {since} and until {until}.", "Exchange the two.")
    conditions = []
    if first is not None:
        conditions.append(f"date >= timestamp '{first.isoformat(sep=' ')}'")
    if last is not None:
        conditions.append(f"date <= timestamp '{last.isoformat(sep=' ')}'")
    return conditions


def _period(option: str, value: str | date) -> tuple[datetime, datetime]:
    """First and last second that `value` stands for."""
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise _has_zone(option, value.isoformat())
        return value.replace(microsecond=0), value.replace(microsecond=0)
    text = value.isoformat() if isinstance(value, date) else value.strip()
    no_date = OptionError(option, f"{option} is {text[:100]!r}, not a date.", _REMEDY)
    found = _DATE.match(text)
    if found is None:
        raise no_date
    rest = text[found.end() :]
    if _ZONE.fullmatch(rest):
        raise _has_zone(option, text)
    time = _TIME.fullmatch(rest) if rest else None
    month, day = found[3] or found[5], found[4] or found[6]
    if rest and (time is None or day is None):
        raise no_date
    try:
        first = datetime(int(found[1]), int(month or 1), int(day or 1))
        if time is not None:
            first = first.replace(hour=int(time[1]), minute=int(time[2]), second=int(time[3] or 0))
            return first, first if time[3] else first + timedelta(seconds=59)
        if day is not None:
            return first, first.replace(hour=23, minute=59, second=59)
        if month is not None:
            following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
            return first, following - timedelta(seconds=1)
        return first, datetime(first.year, 12, 31, 23, 59, 59)
    except (ValueError, OverflowError) as error:
        raise no_date from error


def _has_zone(option: str, text: str) -> OptionError:
    message = f"{option} is {text[:100]!r}, in a time zone; photographs tell the time of their camera, without one."
    return OptionError(option, message, "Leave the zone out.")


_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def under(folder: Path, found: LeftOut) -> LeftOut:
    """The same with absolute names: those of `found` are as seen from `folder`."""
    names = {reason: [(folder / name).as_posix() for name in held] for reason, held in found.names.items()}
    return LeftOut(dict(found.counts), names)


def note_folder(index: Path, folder: str, found: LeftOut) -> None:
    """Make the index say `found` of `folder`, and no more of the folders in it; of others what it said.

    Raises:
        DistilvlError: the disk does not take it.
    """
    inside = prefix(folder)
    kept: Sources = {
        known: _outside(one, inside)
        for known, one in read_left_out(index).items()
        if not prefix(known).startswith(inside)
    }
    write_left_out(index, {**kept, folder: found})


def _outside(found: LeftOut, inside: str) -> LeftOut:
    """`found` without the items below a folder."""
    left = LeftOut()
    for reason, names in found.names.items():
        kept = [name for name in names if not name.startswith(inside)]
        if count := found.counts[reason] - (len(names) - len(kept)):
            left.counts[reason], left.names[reason] = count, kept
    return left


def nothing_to_index(folder: Path, left_out: LeftOut) -> DistilvlError:
    """The error of a folder of which nothing is in the index."""
    if not left_out:
        return DistilvlError(f"{folder} holds no photographs.", "Give a folder that does.")
    return DistilvlError(
        f"nothing in {folder} can be indexed; left out {'; '.join(left_out.lines())}.",
        "Convert these to JPEG or PNG, or see docs/data.md on what is read; --include-hidden reads hidden folders too.",
    )


class Unlisted:
    """Tells which files may still be there although the disk did not list them.

    Args:
        root: the indexed folder.
        scan: what was passed over when it was listed.
    """

    def __init__(self, root: Path, scan: LeftOut) -> None:
        self._root = PurePosixPath(root.as_posix())
        self._is_closed = {PurePosixPath(name): True for name in scan.names.get(UNREADABLE_FOLDER, [])}

    def of(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths`, all below the root, that lie in a folder which cannot be listed now or could not before."""
        return {path for path in paths if any(map(self._closed, self._above(PurePosixPath(path))))}

    def _above(self, path: PurePosixPath) -> Iterable[PurePosixPath]:
        return (folder for folder in path.parents if folder == self._root or self._root in folder.parents)

    def _closed(self, folder: PurePosixPath) -> bool:
        if folder not in self._is_closed:
            try:
                with os.scandir(folder):
                    self._is_closed[folder] = False
            except OSError as error:
                self._is_closed[folder] = error.errno not in _NOT_THERE
        return self._is_closed[folder]
