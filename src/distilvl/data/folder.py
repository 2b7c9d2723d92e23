"""Reader of a folder of images with a list of captions: `captions.jsonl`, `captions.csv` or `captions.tsv`."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distilvl.data.columns import (
    NO_CHOICE,
    Choice,
    Columns,
    ColumnType,
    captions_in,
    find_captions,
    find_columns,
    find_image,
)
from distilvl.data.faults import MALFORMED, BadItemError, Faults
from distilvl.data.listing import dataset_of, image_in, path_in, usual_split
from distilvl.data.merging import Row, merge_rows
from distilvl.data.records import PairDataset
from distilvl.data.tables import read_table
from distilvl.data.text_files import read_lines
from distilvl.errors import DistilvlError

_REMEDY = 'Write one object a line: {"image": "a.jpg", "captions": ["..."]}.'


def read_folder(
    path: str | Path, *, chosen: Choice = NO_CHOICE, roots: Sequence[Path] = (), skip_bad: bool = False
) -> PairDataset:
    """The dataset of a caption list; images lie beside it, at paths relative to it.

    `captions.jsonl` has lines `{"image": "a.jpg", "captions": ["...", ...]}` or `{"image": "a.jpg",
    "caption": "..."}`, with optional `split` and `image_id`. `captions.csv` and `captions.tsv` have a header
    with the columns `image` and `caption` and optionally `split` and `image_id` (see `read_table`). Other usual names
    of these are found too (`find_columns`), or chosen. Lines of the same image are merged. Splits go by their usual
    names (`usual_split`). Without any split the images are divided by a hash of their id, about 80 % train, 10 % val,
    10 % test (`split_of`). `image_id` is the path unless given.

    Args:
        path: the list; any name ending in `.jsonl`, `.csv` or `.tsv`, in UTF-8 or in UTF-16 with its mark.
        chosen: columns, or keys of JSON lines, by name.
        roots: the folders of the images instead of the list's: the first is what paths are relative to, absolute ones
            may lie in any. Without them absolute paths may lie in the list's folder only.
        skip_bad: leave out and count malformed lines (see `Faults`) and what `dataset_of` refuses, instead of raising.

    Raises:
        DistilvlError: no such columns; unless `skip_bad`, names the file and line of a malformed entry; a missing image
            file, duplicate ids, an image without captions.
    """
    path = Path(path)
    name, suffix = path.resolve().parent.name, path.suffix.lower()
    faults = Faults(name, skip_bad=skip_bad)
    if suffix in (".csv", ".tsv"):
        lines = read_table(path, chosen, faults, tabs=suffix == ".tsv")
    else:
        lines = _jsonl_lines(path, chosen, faults)
    root = roots[0] if roots else path.parent
    rows = (
        row
        for where, columns, values in lines
        if (row := faults.attempt(functools.partial(_row, root, roots, where, columns, values))) is not None
    )
    return dataset_of(name, merge_rows(rows, str(path), faults), faults)


def _row(root: Path, roots: Sequence[Path], where: str, columns: Columns, values: Mapping[str, Any]) -> Row:
    name = values.get(columns.image)
    image = image_in(root, name, where, roots)
    split = values.get(columns.split) if columns.split else None
    split = usual_split(split) if isinstance(split, str) else split
    captions = [caption for name in columns.captions if name in values for caption in captions_in(values[name])]
    image_id = values.get(columns.image_id) if columns.image_id else None
    return Row(where, path_in(root, str(name)), image, captions, split, image_id)


def _jsonl_lines(path: Path, chosen: Choice, faults: Faults) -> Iterator[tuple[str, Columns, Mapping[str, Any]]]:
    """Each line with its place and what its keys mean; lines may differ in their keys."""
    known: dict[tuple[tuple[str, ColumnType], ...], Columns] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        values = faults.attempt(functools.partial(_object, line, where))
        if values is None:
            continue
        types = tuple((key, _type(value)) for key, value in values.items())
        if types not in known:
            known[types] = _keys(dict(types), chosen, where)
        yield where, known[types], values
    if known and not any(columns.captions for columns in known.values()):
        types, columns = next(iter(known.items()))
        image = columns.image if columns.image in dict(types) else None
        find_columns(dict(types), str(path), Choice(image), paths=True)  # its error says what there is


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadItemError(f"{where} is not valid JSON", _REMEDY, name=where, reason=MALFORMED) from error
    if not isinstance(values, dict):
        raise BadItemError(f"{where} is not an object", _REMEDY, name=where, reason=MALFORMED)
    if not isinstance(values.get("captions"), (list, type(None))):
        raise BadItemError(f"{where}: 'captions' is not a list", _REMEDY, name=where, reason=MALFORMED)
    return values


def _keys(types: Mapping[str, ColumnType], chosen: Choice, where: str) -> Columns:
    """What the keys of a line mean: `image`, `captions` and `caption` always what they say, others as in a table.

    Without a key of an image it is `image`, which the line then lacks; without one of captions it has none.
    """
    image = chosen.image or ("image" if "image" in types else None)
    captions = chosen.captions or tuple(name for name in ("captions", "caption") if name in types)
    if image is None:
        with suppress(DistilvlError):
            image = find_image(types, where, paths=True)
    if not captions:
        with suppress(DistilvlError):
            captions = find_captions(types, image or "image", where)
    return Columns(image or "image", captions, chosen.split or "split", chosen.image_id or "image_id")


def _type(value: Any) -> ColumnType:
    return "text" if isinstance(value, (str, list, dict)) else "number" if isinstance(value, int) else "other"
