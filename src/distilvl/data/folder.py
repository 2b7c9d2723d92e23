"""Reader of a folder of images with a list of captions: `captions.jsonl`, `captions.csv` or `captions.tsv`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilvl.data.listing import dataset_of, image_in, usual_split
from distilvl.data.merging import Row, merge_rows
from distilvl.data.records import PairDataset
from distilvl.data.text_files import read_lines
from distilvl.errors import DistilvlError

_LONGEST_FIELD = 2**31 - 1  # the csv module stops at 131,072 characters, which a caption of 10,000 words can exceed


def read_folder(path: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of a caption list; images lie beside it, at paths relative to it.

    `captions.jsonl` has lines `{"image": "a.jpg", "captions": ["...", ...]}` or `{"image": "a.jpg",
    "caption": "..."}`, with optional `split` and `image_id`. `captions.csv` and `captions.tsv` have a header
    with the columns `image` and `caption` and optionally `split` and `image_id`; in a TSV, fields stand between
    tabs and quotes are letters like any other. Lines of the same image are merged. Splits go by their usual names
    (`usual_split`). Without any split the images are divided by a hash of their id, about 80 % train, 10 % val, 10 %
    test (`split_of`). `image_id` is the path unless given.

    Args:
        path: the list; any name ending in `.jsonl`, `.csv` or `.tsv`, in UTF-8 or in UTF-16 with its mark.
        skip_bad: leave out images whose file is missing, instead of raising.

    Raises:
        DistilvlError: names the file and line of a malformed entry; a missing image file, duplicate ids, an
            image without captions.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    lines = _table_lines(path, tabs=suffix == ".tsv") if suffix in (".csv", ".tsv") else _jsonl_lines(path)
    rows = (_row(path.parent, where, values) for where, values in lines)
    return dataset_of(path.resolve().parent.name, merge_rows(rows, str(path)), skip_bad=skip_bad)


def _row(root: Path, where: str, values: dict[str, Any]) -> Row:
    name, split = values.get("image"), values.get("split")
    image = image_in(root, name, where)
    split = usual_split(split) if isinstance(split, str) else split
    return Row(where, str(name), image, values["captions"], split, values.get("image_id"))


def _jsonl_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    remedy = 'Write one object a line: {"image": "a.jpg", "captions": ["..."]}.'
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DistilvlError(f"{where} is not valid JSON.", remedy) from error
        if not isinstance(values, dict):
            raise DistilvlError(f"{where} is not an object.", remedy)
        captions = values.get("captions", [])
        if "captions" in values and not isinstance(captions, list):
            raise DistilvlError(f"{where}: 'captions' is not a list.", remedy)
        if "caption" in values:
            captions = [*captions, values["caption"]]
        yield where, {**values, "captions": captions}


def _table_lines(path: Path, *, tabs: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    lines = read_lines(path)
    if tabs:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.DictReader(lines, strict=True)
    try:
        columns = reader.fieldnames or []
        if not {"image", "caption"} <= set(columns):
            raise DistilvlError(
                f"{path} has the columns {', '.join(map(repr, columns)) or 'none'}.",
                "Its first line must name the columns 'image' and 'caption' (optional: 'split', 'image_id'), "
                f"with {'tabs' if tabs else 'commas'} between them.",
            )
        twice = [name for name, count in Counter(columns).items() if count > 1]
        if twice:
            raise DistilvlError(
                f"{path} has the column {twice[0]!r} twice.", "Give an image a line for each of its captions."
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or row["caption"] is None:
                raise DistilvlError(
                    f"{where} has not the {len(columns)} columns of the header.",
                    "Take tabs out of the texts." if tabs else "Put texts with commas in quotes.",
                )
            given = {name: value for name, value in row.items() if value}
            yield where, {**given, "captions": [row["caption"]]}
    except csv.Error as error:
        raise DistilvlError(f"{path}, line {reader.line_num}: {error}.", "Check the quotes there.") from error
