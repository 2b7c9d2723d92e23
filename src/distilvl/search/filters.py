"""What a user asks for, in the table's SQL: every value quoted, so that no name can become part of the question."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import PurePath

from distilvl.errors import DistilvlError

_REMEDY = "Write YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS]."
_ID = re.compile(r"[0-9a-f]{32}")
_LONGEST_PATH = 4096  # of Linux; what is longer would only cost time


def quoted(text: str) -> str:
    """`text` as a string of SQL.

    Raises:
        DistilvlError: a NUL, or half of a surrogate pair, which no stored text has.
    """
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DistilvlError(f"{text!r} is not text that can be searched for.", "Check the name.")
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """Rows whose `column` is one of `values`, of which there must be at least one."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def has_id(key: str) -> str:
    """Rows of that content.

    Raises:
        DistilvlError: not 32 hex digits.
    """
    if not _ID.fullmatch(key):
        raise DistilvlError(f"{key!r} is not the id of a photograph.", "An id has 32 hex digits, as in a hit.")
    return f"id = {quoted(key)}"


def below(folder: str, roots: Iterable[str]) -> str:
    """Rows of files in a folder or in folders in it.

    Args:
        folder: absolute, or relative to any of `roots`.
        roots: the indexed folders, absolute, with `/`.

    Raises:
        DistilvlError: a name that no folder can have, a relative one with `..`, or a link that leads to itself.
    """
    quoted(folder)  # before the disk is asked: it takes neither a NUL nor half of a surrogate pair
    if len(folder) > _LONGEST_PATH:
        raise DistilvlError(f"the folder's name has {len(folder)} characters.", "Check the name.")
    path = PurePath(folder)
    if path.is_absolute():
        tops = _names(folder)
    else:
        parts = [part for part in path.parts if part != "."]
        if ".." in parts:
            raise DistilvlError(f"the folder {folder!r} has '..' in it.", "Name it from the indexed folder down.")
        tops = ["/".join([root.rstrip("/"), *parts]) for root in roots]
    if not tops:
        return "FALSE"
    # `starts_with` has no wild cards, unlike LIKE.
    return "(" + " OR ".join(f"starts_with(path, {quoted(prefix(top))})" for top in tops) + ")"


def _names(folder: str) -> list[str]:
    """An absolute folder as an index may know it: the links above the indexed folder followed, those in it not."""
    path = PurePath(os.path.abspath(folder))  # noqa: PTH100 - Path.resolve follows links
    names, real = [path.as_posix()], PurePath(path.anchor)
    for number, part in enumerate(path.parts[1:], start=2):
        real = real / part
        if _is_link(real):
            real = PurePath(os.path.realpath(real))
            if _is_link(real):
                raise DistilvlError(f"the folder {folder} is behind a link that leads to itself.", "Check the path.")
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
        since: a date or time, or as much of one as matters (`2021`, `2021-07`); text or Python's.
        until: the same.

    Raises:
        DistilvlError: not a date, or an end before the beginning.
    """
    first = None if since is None else _period(since)[0]
    last = None if until is None else _period(until)[1]
    if first is not None and last is not None and first > last:
        raise DistilvlError(f"there is no time since {since} and until {until}.", "Exchange the two.")
    conditions = []
    if first is not None:
        conditions.append(f"date >= timestamp '{first.isoformat(sep=' ')}'")
    if last is not None:
        conditions.append(f"date <= timestamp '{last.isoformat(sep=' ')}'")
    return conditions


def _period(value: str | date) -> tuple[datetime, datetime]:
    """First and last second that `value` stands for."""
    if isinstance(value, datetime):
        return value.replace(microsecond=0, tzinfo=None), value.replace(microsecond=0, tzinfo=None)
    text = value.isoformat() if isinstance(value, date) else value.strip()
    try:
        if re.fullmatch(r"[0-9]{4}", text):
            return datetime(int(text), 1, 1), datetime(int(text), 12, 31, 23, 59, 59)
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]", text):
            first = datetime(int(text[:4]), int(text[5:]), 1)
            following = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
            return first, following - timedelta(seconds=1)
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]", text):
            first = datetime.fromisoformat(text)
            return first, first + timedelta(hours=23, minutes=59, seconds=59)
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]", text):
            first = datetime.fromisoformat(text)
            return first, first + timedelta(seconds=59)
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]", text):
            first = datetime.fromisoformat(text)
            return first, first
    except (ValueError, OverflowError) as error:
        raise DistilvlError(f"{text!r} is not a date.", _REMEDY) from error
    raise DistilvlError(f"{text!r} is not a date.", _REMEDY)
