"""Rows that each say something about an image, merged into one record an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distilvl.data.listing import clean_caption, is_unicode, split_of
from distilvl.data.records import ImageSource, Record
from distilvl.errors import DistilvlError


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

    image: ImageSource
    captions: list[str] = field(default_factory=list)
    split: str | None = None
    image_id: str | None = None


def merge_rows(rows: Iterable[Row], source: str) -> list[Record]:
    """One record an image, in order of first appearance, with the captions of all its rows.

    Without any split the images are divided by a hash of their id (`split_of`).

    Args:
        rows: of the list, in order.
        source: how an error message calls the list.

    Raises:
        DistilvlError: a caption that is no string, rows of one image that contradict each other, or images without
            a split beside images with one.
    """
    entries: dict[str, _Entry] = {}
    for row in rows:
        entry = entries.setdefault(row.key, _Entry(row.image))
        entry.captions += [clean_caption(caption, row.where) for caption in row.captions]
        entry.split = _agreed(entry.split, row.split, "split", row.where)
        entry.image_id = _agreed(entry.image_id, row.image_id, "image_id", row.where)
    splits = [entry.split for entry in entries.values()]
    if None in splits and any(splits):
        key = list(entries)[splits.index(None)]
        raise DistilvlError(
            f"{source}: image {key!r} has no split, but others have.", "Give every image a split, or none."
        )
    return [_record(key, entry) for key, entry in entries.items()]


def _record(key: str, entry: _Entry) -> Record:
    image_id = entry.image_id or key
    return Record(image_id, entry.image, tuple(entry.captions), entry.split or split_of(image_id))


def _agreed(old: str | None, new: Any, what: str, where: str) -> str | None:
    """The value of a row, which must agree with what earlier rows of the same image said."""
    if new is None:
        return old
    value = str(new) if isinstance(new, (str, int)) else ""
    if not value or not is_unicode(value):
        raise DistilvlError(f"{where}: {what!r} is not a name.", "Write it in quotes.")
    if old is not None and value != old:
        raise DistilvlError(
            f"{where}: {what} {value!r} contradicts {old!r} of an earlier line of the same image.",
            f"Give an image one {what}.",
        )
    return value
