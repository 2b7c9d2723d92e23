"""Text that people hand in: encodings, CSV with commas or what else stands between columns, TSV, JSON lists."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distilvl.data.columns import Choice, Columns, find_columns
from distilvl.data.left_out import MALFORMED, BadItemError, Faults
from distilvl.errors import DistilvlError

# UTF-32 is not read: its little-endian mark begins like that of UTF-16, and nobody writes lists in it.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_text(path: Path) -> str:
    """The text of a list: UTF-8, with or without a byte order mark, or UTF-16 with one.

    No other encoding is guessed: a wrong guess gives captions that look right until an accent comes.

    Raises:
        DistilvlError: the file cannot be read, or is in another encoding; names the line and the byte.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode_text(data, str(path))


def read_lines(path: Path) -> Iterator[str]:
    """The lines of `read_text`, each with its end, without the whole file in memory.

    Raises:
        DistilvlError: as `read_text`, when the line is reached.
    """
    try:
        with path.open("rb") as file:
            mark, encoding = _encoding(file.read(len(codecs.BOM_UTF8)))
            file.seek(len(mark))
            yield from io.TextIOWrapper(file, encoding)  # any line end becomes \n
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError:
        read_text(path)  # says where
        raise


def decode_text(data: bytes, where: str) -> str:
    """The text of a list whose bytes are `data`, as `read_text`; `where` is what the error calls it."""
    mark, encoding = _encoding(data)
    data = data[len(mark) :]
    try:
        # Reading a file as text turns all line ends into \n; readers of CSV and JSON lines rely on that.
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count("\n".encode(encoding), 0, error.start) + 1
        byte = f"byte {len(mark) + error.start} is 0x{data[error.start]:02x}"
        what = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise DistilvlError(
            f"{where}, line {line} is not {what} text ({byte}).",
            "Save the file as UTF-8, for example by 'iconv -f WINDOWS-1252 -t UTF-8 old > new'.",
        ) from error


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark that a file begins with, perhaps none, and what follows it is written in."""
    return next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", "utf-8"))


def _unreadable(path: Path, error: OSError) -> DistilvlError:
    return DistilvlError(f"cannot read {path}: {error.strerror}.", "Check the path.")


def read_json(path: Path) -> Any:
    """What the JSON file `path` holds; `DistilvlError` when it is no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DistilvlError(f"{path} is not valid JSON ({reason}).", "Check that the file is complete.") from error


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
