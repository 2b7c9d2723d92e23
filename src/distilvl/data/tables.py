"""Lists of captions as text, `captions.jsonl`, `.csv` and `.tsv`: their encodings, columns, keys and lines."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distilvl.data.columns import (
    NO_CHOICE,
    Choice,
    Columns,
    ColumnType,
    Row,
    captions_in,
    find_captions,
    find_columns,
    find_image,
    merge_rows,
)
from distilvl.data.left_out import MALFORMED, BadItemError, Faults
from distilvl.data.listing import dataset_of, image_in, path_in, usual_split
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError

# UTF-32 is not read: its little-endian mark begins like that of UTF-16, and nobody writes lists in it.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LONGEST_FIELD = 2**31 - 1  # the csv module stops at 131,072 characters, which a caption of 10,000 words can exceed
_BETWEEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
Line = tuple[str, Columns, Mapping[str, Any]]  # where a line of a list stands, what its columns are, and its values
_JSON_REMEDY = 'Write one object a line: {"image": "a.jpg", "captions": ["..."]}.'


def read_folder(
    path: str | Path, *, chosen: Choice = NO_CHOICE, roots: Sequence[Path] = (), skip_bad: bool = False
) -> PairDataset:
    """The dataset of a caption list (`.jsonl`, `.csv` or `.tsv`); images lie beside it, at paths relative to it.

    JSON lines are `{"image": "a.jpg", "captions": ["...", ...]}` or `{"image": "a.jpg", "caption": "..."}`, with
    optional `split` and `image_id`; tables have a header with these names (see `read_table`), or other usual ones
    (`find_columns`). Lines of the same image are merged. Without any split the images are divided by a hash of their
    id (`split_of`). `image_id` is the path unless given. For `chosen`, `roots`, `skip_bad` and errors see `listing`.
    """
    path = Path(path)
    name, suffix = path.resolve().parent.name, path.suffix.lower()
    faults, tabs = Faults(name, skip_bad=skip_bad), suffix == ".tsv"
    is_table = tabs or suffix == ".csv"
    lines = read_table(path, chosen, faults, tabs=tabs) if is_table else _json_lines(path, chosen, faults)
    rows = _rows(lines, roots[0] if roots else path.parent, roots, faults)
    return dataset_of(name, merge_rows(rows, str(path), faults), faults)


def _rows(lines: Iterable[Line], root: Path, roots: Sequence[Path], faults: Faults) -> Iterator[Row]:
    for where, columns, values in lines:
        with faults:
            name = values.get(columns.image)
            image = image_in(root, name, where, roots)
            split = values.get(columns.split) if columns.split else None
            split = usual_split(split) if isinstance(split, str) else split
            captions = [text for key in columns.captions if key in values for text in captions_in(values[key])]
            image_id = values.get(columns.image_id) if columns.image_id else None
            yield Row(where, path_in(root, str(name)), image, captions, split, image_id)


def _json_lines(path: Path, chosen: Choice, faults: Faults) -> Iterator[Line]:
    """Each line with its place and what its keys mean; lines may differ in their keys."""
    known: dict[tuple[tuple[str, ColumnType], ...], Columns] = {}
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        with faults:
            values = _object(line, where)
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
        raise BadItemError(f"{where} is not valid JSON", _JSON_REMEDY, where, MALFORMED) from error
    if not isinstance(values, dict):
        raise BadItemError(f"{where} is not an object", _JSON_REMEDY, where, MALFORMED)
    if not isinstance(values.get("captions"), (list, type(None))):
        raise BadItemError(f"{where}: 'captions' is not a list", _JSON_REMEDY, where, MALFORMED)
    return values


def _type(value: Any) -> ColumnType:
    return "text" if isinstance(value, (str, list, dict)) else "number" if isinstance(value, int) else "other"


def _keys(types: Mapping[str, ColumnType], chosen: Choice, where: str) -> Columns:
    """What the keys of a line mean: `image`, `captions` and `caption` always what they say, others as in a table."""
    image = chosen.image or ("image" if "image" in types else None)
    captions = chosen.captions or tuple(name for name in ("captions", "caption") if name in types)
    with suppress(DistilvlError):
        image = image or find_image(types, where, paths=True)
    with suppress(DistilvlError):
        captions = captions or find_captions(types, image or "image", where)
    return Columns(image or "image", captions, chosen.split or "split", chosen.image_id or "image_id")


def read_table(path: Path, chosen: Choice, faults: Faults, *, tabs: bool = False) -> Iterator[Line]:
    """The rows of a table in text: where each stands, what the columns are, and its values.

    Empty values are absent, but for captions. The first line names the columns. Between them stand commas,
    semicolons, tabs or bars: whichever makes columns of images and captions of the first line; or what a line `sep=;`
    before it says. In a TSV (`tabs`) fields stand between tabs, and quotes are letters like any other. Rows of another
    number of columns, and such with odd quotes, are `faults`. `DistilvlError` for no columns of images and captions,
    one of them twice, or another encoding.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    lines = read_lines(path)
    first, before, given = next(lines, ""), 1, ""
    if not tabs and first.lower().startswith("sep=") and len(first.strip()) == len("sep=") + 1:
        given, first, before = first.strip()[-1], next(lines, ""), 2
    sign, names, columns = _header(path, first, "\t" if tabs else given or "".join(_BETWEEN), chosen)
    reader = csv.reader(lines, delimiter=sign, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, strict=True)
    remedy = "Take tabs out of the texts." if tabs else f"Put texts with {_BETWEEN.get(sign, sign)} in quotes."
    while True:
        begun = reader.line_num + before + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            last = reader.line_num + before
            # A quote that is never closed takes in the lines after it, too.
            where = f"{path}, line {last}" if begun >= last else f"{path}, lines {begun} to {last}"
            faults.add(BadItemError(f"{where}: {error}", "Check the quotes there.", where, MALFORMED))
            continue
        if row is None:
            return
        where = f"{path}, line {reader.line_num + before}"
        if len(row) == len(names):
            values = zip(names, row, strict=True)
            yield where, columns, {name: value for name, value in values if value or name in columns.captions}
        elif row:
            problem = f"{where} has not the {len(names)} columns of the header"
            faults.add(BadItemError(problem, remedy, where, MALFORMED))


def _header(path: Path, line: str, signs: str, chosen: Choice) -> tuple[str, list[str], Columns]:
    refused: dict[int, DistilvlError] = {}
    for sign in signs:
        try:
            names = [name.strip() for name in next(csv.reader([line], delimiter=sign, strict=True), [])]
        except csv.Error as error:
            raise DistilvlError(f"{path}, line 1: {error}.", "Check the quotes there.") from error
        twice = [name for name, count in Counter(names).items() if count > 1 and name]
        if twice:
            remedy = "Give an image a line for each of its captions."
            raise DistilvlError(f"{path} has the column {twice[0]!r} twice.", remedy)
        image = chosen.image or ("image" if "image" in names else None)
        captions = chosen.captions or (("caption",) if "caption" in names else ())
        choice = Choice(image, captions, chosen.split, chosen.image_id)
        try:
            return sign, names, find_columns(dict.fromkeys(names, "text"), str(path), choice, paths=True)
        except DistilvlError as error:
            refused.setdefault(len(names), error)
    between = " or ".join(_BETWEEN.get(sign, repr(sign)) for sign in signs)
    usual = f"{chosen.image or 'image'!r} and {(chosen.captions or ('caption',))[0]!r}"
    remedy = f"The first line of a table names its columns, such as {usual}, with {between} between."
    raise DistilvlError(str(refused[max(refused)]), remedy)


def read_text(path: Path) -> str:
    """The text of a list: UTF-8, with or without a byte order mark, or UTF-16 with one; else a `DistilvlError`."""
    try:
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror}.", "Check the path.") from error


def read_lines(path: Path) -> Iterator[str]:
    """The lines of `read_text`, each with its end, without the whole file in memory; errors come with their line."""
    try:
        with path.open("rb") as file:
            mark, encoding = _encoding(file.read(len(codecs.BOM_UTF8)))
            file.seek(len(mark))
            yield from io.TextIOWrapper(file, encoding)  # any line end becomes \n
    except UnicodeDecodeError:
        read_text(path)  # says where
        raise
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror}.", "Check the path.") from error


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
        remedy = "Save the file as UTF-8, for example by 'iconv -f WINDOWS-1252 -t UTF-8 old > new'."
        raise DistilvlError(f"{where}, line {line} is not {what} text ({byte}).", remedy) from error


def _encoding(start: bytes) -> tuple[bytes, str]:
    """The byte order mark that a file begins with, perhaps none, and what follows it is written in."""
    return next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", "utf-8"))


def read_json(path: Path) -> Any:
    """What the JSON file `path` holds; `DistilvlError` when it is no JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DistilvlError(f"{path} is not valid JSON ({reason}).", "Check that the file is complete.") from error
