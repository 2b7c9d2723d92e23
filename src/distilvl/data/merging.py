"""Rows that each say something about an image, merged into one record an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from distilvl.data.faults import BadItemError, Faults
from distilvl.data.listing import clean_captions, is_unicode, split_of
from distilvl.data.records import ImageSource, Record


@dataclass(frozen=True)
class Row:
    """What one line or row of a list says.

    Attributes:
        where: how an error message calls the row.
        key: which image it is about, such as its path; also the `image_id`, unless that is given.
        image: the image.
        captions: any number, not yet checked.
        split: a name, or nothing.
        image_id: a string or a number, or nothing.
    """

    where: str
    key: str
    image: ImageSource
    captions: Iterable[Any]
    split: Any = None
    image_id: Any = None


@dataclass(slots=True)
class _Entry:
    """What the rows seen so far say about one image."""

    key: str
    image: ImageSource
    captions: list[str] = field(default_factory=list)
    split: str | None = None
    image_id: str | None = None


def merge_rows(rows: Iterable[Row], source: str, faults: Faults) -> list[Record]:
    """One record an image, in order of first appearance, with the captions of all its rows.

    Without any split the images are divided by a hash of their id (`split_of`). Rows with a caption that is no string,
    or that contradict an earlier row of their image, and images without a split beside images with one, are faults.

    Args:
        rows: of the list, in order.
        source: how an error message calls the list.
        faults: where they are noted.
    """
    entries: dict[str, _Entry] = {}
    for row in rows:
        faults.attempt(lambda row=row: _take(row, entries))  # type: ignore[misc]
    some = any(entry.split for entry in entries.values())
    records = []
    for entry in entries.values():
        key = entry.key
        if some and entry.split is None:
            faults.add(_without_split(source, key, entry.image.name))
        else:
            image_id = entry.image_id or key
            records.append(Record(image_id, entry.image, tuple(entry.captions), entry.split or split_of(image_id)))
    return records


def _take(row: Row, entries: dict[str, _Entry]) -> None:
    """Add a row to the entry of its image; none of it if any of it is bad."""
    place = PurePosixPath(row.key).as_posix() if "./" in row.key or "//" in row.key else row.key
    entry = entries.get(place) or _Entry(row.key, row.image)
    captions = clean_captions(row.captions, row.where)
    split = _agreed(entry.split, row.split, "split", row.where)
    image_id = _agreed(entry.image_id, row.image_id, "image_id", row.where)
    entries[place] = entry
    entry.captions += captions
    entry.split, entry.image_id = split, image_id


def _without_split(source: str, key: str, name: str) -> BadItemError:
    return BadItemError(
        f"{source}: image {key!r} has no split, but others have",
        "Give every image a split, or none.",
        name=name,
        reason="no split, where other images have one",
    )


def _agreed(old: str | None, new: Any, what: str, where: str) -> str | None:
    """The value of a row, which must agree with what earlier rows of the same image said."""
    if new is None:
        return old
    value = str(new) if isinstance(new, (str, int)) else ""
    if not value or not is_unicode(value):
        raise BadItemError(
            f"{where}: {what!r} is not a name", "Write it in quotes.", name=where, reason=f"no name for its {what}"
        )
    if old is not None and value != old:
        raise BadItemError(
            f"{where}: {what} {value!r} contradicts {old!r} of an earlier line of the same image",
            f"Give an image one {what}.",
            name=where,
            reason=f"another {what} than an earlier row of the image",
        )
    return value
