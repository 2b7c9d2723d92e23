"""Reader of a folder of images with a list of captions: `captions.jsonl` or `captions.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilvl.data.listing import clean_caption, dataset_of, image_in, read_text, split_of
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError


@dataclass
class _Entry:
    """What the lines seen so far say about one image."""

    image: FileImage
    captions: list[str] = field(default_factory=list)
    split: str | None = None
    image_id: str | None = None


def read_folder(path: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of a caption list; images lie beside it, at paths relative to it.

    `captions.jsonl` has lines `{"image": "a.jpg", "captions": ["...", ...]}` or `{"image": "a.jpg",
    "caption": "..."}`, with optional `split` and `image_id`. `captions.csv` has a header with the columns
    `image` and `caption` and optionally `split` and `image_id`. Lines of the same image are merged. Without
    any split the images are divided by a hash of their id, about 80 % train, 10 % val, 10 % test
    (`split_of`). `image_id` is the path unless given.

    Args:
        path: the list; any name ending in `.jsonl` or `.csv`.
        skip_bad: leave out images whose file is missing, instead of raising.

    Raises:
        DistilvlError: names the file and line of a malformed entry; a missing image file, duplicate ids, an
            image without captions.
    """
    path = Path(path)
    text = read_text(path)
    lines = _csv_lines(path, text) if path.suffix.lower() == ".csv" else _jsonl_lines(path, text)
    entries = _merged(path.parent, lines)
    splits = [entry.split for entry in entries.values()]
    if None in splits and any(splits):
        name = list(entries)[splits.index(None)]
        raise DistilvlError(
            f"{path}: image {name!r} has no split, but others have.", "Give every image a split, or none."
        )
    records = [_record(name, entry) for name, entry in entries.items()]
    return dataset_of(path.resolve().parent.name, records, skip_bad=skip_bad)


def _record(name: str, entry: _Entry) -> Record:
    image_id = entry.image_id or name
    return Record(image_id, entry.image, tuple(entry.captions), entry.split or split_of(image_id))


def _jsonl_lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    remedy = 'Write one object a line: {"image": "a.jpg", "captions": ["..."]}.'
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DistilvlError(f"{where} is not valid JSON.", remedy) from error
        if not isinstance(values, dict):
            raise DistilvlError(f"{where} is not an object.", remedy)
        captions = values.get("captions", [])
        if "captions" in values and not isinstance(captions, list):
            raise DistilvlError(f"{where}: 'captions' is not a list.", remedy)
        if "caption" in values:
            captions = [*captions, values["caption"]]
        yield where, {**values, "captions": captions}


def _csv_lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        if not {"image", "caption"} <= set(columns):
            raise DistilvlError(
                f"{path} has the columns {', '.join(map(repr, columns)) or 'none'}.",
                "Its first line must name the columns 'image' and 'caption' (optional: 'split', 'image_id').",
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or row["caption"] is None:
                raise DistilvlError(
                    f"{where} has not the {len(columns)} columns of the header.",
                    "Put texts with commas in quotes.",
                )
            given = {name: value for name, value in row.items() if value}
            yield where, {**given, "captions": [row["caption"]]}
    except csv.Error as error:
        raise DistilvlError(f"{path}, line {reader.line_num}: {error}.", "Check the quotes there.") from error


def _merged(root: Path, lines: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, _Entry]:
    """Entries by image path, in order of first appearance."""
    entries: dict[str, _Entry] = {}
    for where, values in lines:
        name = values.get("image")
        image = image_in(root, name, where)
        entry = entries.setdefault(str(name), _Entry(image))
        entry.captions += [clean_caption(caption, where) for caption in values["captions"]]
        entry.split = _agreed(entry.split, values.get("split"), "split", where)
        entry.image_id = _agreed(entry.image_id, values.get("image_id"), "image_id", where)
    return entries


def _agreed(old: str | None, new: Any, what: str, where: str) -> str | None:
    """The value of a line, which must agree with what earlier lines of the same image said."""
    if new is None:
        return old
    value = str(new) if isinstance(new, (str, int)) else ""
    if not value:
        raise DistilvlError(f"{where}: {what!r} is not a name.", "Write it in quotes.")
    if old is not None and value != old:
        raise DistilvlError(
            f"{where}: {what} {value!r} contradicts {old!r} of an earlier line of the same image.",
            f"Give an image one {what}.",
        )
    return value
