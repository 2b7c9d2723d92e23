"""Tables in text: CSV with commas, or what else stands between its columns, and TSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distilvl.data.columns import Choice, Columns, find_columns
from distilvl.data.faults import MALFORMED, BadItemError, Faults
from distilvl.data.text_files import read_lines
from distilvl.errors import DistilvlError

_LONGEST_FIELD = 2**31 - 1  # the csv module stops at 131,072 characters, which a caption of 10,000 words can exceed
_BETWEEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(
    path: Path, chosen: Choice, faults: Faults, *, tabs: bool = False
) -> Iterator[tuple[str, Columns, Mapping[str, Any]]]:
    """The rows of a table in text: where each stands, what the columns are, and its values.

    Empty values are absent, but for captions. The first line names the columns. Between them stand commas, or
    semicolons (as spreadsheets write in much of Europe), tabs or bars: whichever makes columns of images and captions
    of the first line; or what a line `sep=;` before it says. In a TSV fields stand between tabs, and quotes are letters
    like any other.

    Args:
        path: of the table.
        chosen: columns by name.
        faults: where rows of another number of columns, and such with odd quotes, are noted.
        tabs: whether it is a TSV.

    Raises:
        DistilvlError: no columns of images and captions, or one of them twice; text in another encoding.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    lines = read_lines(path)
    first = next(lines, "")
    given = ""
    if not tabs and first.lower().startswith("sep=") and len(first.strip()) == len("sep=") + 1:
        given, first = first.strip()[-1], next(lines, "")
    signs = "\t" if tabs else given or "".join(_BETWEEN)
    sign, names, columns = _header(path, first, signs, chosen)
    before = 2 if given else 1
    if tabs:
        reader = csv.reader(lines, delimiter=sign, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=sign, strict=True)
    remedy = "Take tabs out of the texts." if tabs else f"Put texts with {_BETWEEN.get(sign, sign)} in quotes."
    while True:
        begun = reader.line_num + before + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = _lines(path, begun, reader.line_num + before)
            faults.add(BadItemError(f"{where}: {error}", "Check the quotes there.", name=where, reason=MALFORMED))
            continue
        where = f"{path}, line {reader.line_num + before}"
        if len(row) == len(names):
            yield (
                where,
                columns,
                {name: value for name, value in zip(names, row, strict=True) if value or name in columns.captions},
            )
        elif row:
            problem = f"{where} has not the {len(names)} columns of the header"
            faults.add(BadItemError(problem, remedy, name=where, reason=MALFORMED))


def _lines(path: Path, first: int, last: int) -> str:
    """A quote that is never closed takes in the lines after it, too."""
    return f"{path}, line {last}" if first >= last else f"{path}, lines {first} to {last}"


def _header(path: Path, line: str, signs: str, chosen: Choice) -> tuple[str, list[str], Columns]:
    """What stands between the columns, their names, and which are which."""
    refused: dict[int, DistilvlError] = {}
    for sign in signs:
        try:
            names = [name.strip() for name in next(csv.reader([line], delimiter=sign, strict=True), [])]
        except csv.Error as error:
            raise DistilvlError(f"{path}, line 1: {error}.", "Check the quotes there.") from error
        twice = [name for name, count in Counter(names).items() if count > 1 and name]
        if twice:
            raise DistilvlError(
                f"{path} has the column {twice[0]!r} twice.", "Give an image a line for each of its captions."
            )
        try:
            return sign, names, _columns(names, path, chosen)
        except DistilvlError as error:
            refused.setdefault(len(names), error)
    between = " or ".join(_BETWEEN.get(sign, repr(sign)) for sign in signs)
    usual = f"{chosen.image or 'image'!r} and {(chosen.captions or ('caption',))[0]!r}"
    raise DistilvlError(
        str(refused[max(refused)]),
        f"The first line of a table names its columns, such as {usual}, with {between} between.",
    )


def _columns(names: list[str], path: Path, chosen: Choice) -> Columns:
    image = chosen.image or ("image" if "image" in names else None)
    captions = chosen.captions or (("caption",) if "caption" in names else ())
    choice = Choice(image, captions, chosen.split, chosen.image_id)
    return find_columns(dict.fromkeys(names, "text"), str(path), choice, paths=True)
