"""Tables: which columns are the image, the captions, the split and the id, and their rows as one record an image."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from distilvl.data.left_out import BadItemError, Faults
from distilvl.data.listing import clean_captions, is_unicode, split_of, usual_split
from distilvl.data.records import ImageSource, Record
from distilvl.errors import DistilvlError, require

ColumnType = Literal["bytes", "text", "number", "other"]
"""What a column holds: encoded images (bytes, or a struct with `bytes`), texts or lists of texts, whole numbers."""

_IMAGES = ("image", "img", "jpg", "png", "image_bytes", "image_path", "file_name", "filename", "path", "image_name",
           "filepath", "file_path", "file")  # fmt: skip
_CAPTIONS = ("captions", "caption", "sentences", "sentences_raw", "sentence", "texts", "text", "alt_text",
             "description", "comment", "txt")  # fmt: skip
_IDS = ("image_id", "img_id", "imgid")
_NUMBERED = re.compile(r"(caption|sentence|text)s?[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """Columns, or keys of JSON lines, that the user has named; what is empty is found by name and type."""

    image: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None
    image_id: str | None = None


NO_CHOICE = Choice()


@dataclass(frozen=True)
class Columns(Choice):
    """Names of the columns of a table: of images or their paths, captions, splits and ids, the last two if there."""

    image: str

    @property
    def texts(self) -> list[str]:
        """All but the image's, each once."""
        return list(dict.fromkeys([*self.captions, *filter(None, (self.split, self.image_id))]))


def find_columns(types: Mapping[str, ColumnType], where: str, chosen: Choice = NO_CHOICE, *, paths: bool) -> Columns:
    """The columns that a reader needs, of a table whose columns have these types.

    An image column is one of bytes with a usual name (`image`, `img`, `jpg`, ...), or the only one of bytes, or,
    where `paths` are read, one of texts with a usual name. The captions are `captions`, `caption` or another usual
    name, or a numbered family such as `caption_0` to `caption_4`. `split`, and `image_id`, `img_id` or `imgid`, are
    taken where they are there. Usual names may be in capitals. `DistilvlError` for no such column, several that could
    be meant, or a choice that the table does not have or that is of another type.
    """
    table = f"{where} has the columns {', '.join(f'{name} ({kind})' for name, kind in types.items()) or 'none'}"
    image = chosen.image if chosen.image is not None else find_image(types, table, paths=paths)
    texts = chosen.captions or find_captions(types, image, table)
    wanted: list[tuple[str | None, str, tuple[ColumnType, ...]]] = [
        (image, "image", ("bytes", "text") if paths else ("bytes",)),
        *((name, "caption", ("text",)) for name in texts),
        (chosen.split, "split", ("text",)),
        (chosen.image_id, "image_id", ("text", "number")),
    ]
    for name, what, kinds in wanted:
        if name is not None and name not in types:
            raise DistilvlError(f"{table}, not {name!r}.", f"Name another {what} column.")
        if name is not None and types[name] not in kinds:
            raise DistilvlError(f"{table}: {name!r} is no {what} column.", f"It has to hold {' or '.join(kinds)}.")
    split = chosen.split or next(_named(types, ("split",), "text"), None)
    return Columns(image, texts, split, chosen.image_id or next(_named(types, _IDS, "text", "number"), None))


def _named(types: Mapping[str, ColumnType], usual: Sequence[str], *kinds: ColumnType) -> Iterator[str]:
    """Columns of these kinds with a usual name, in the order of the names; one in small letters before others."""
    for name in usual:
        found = [column for column, kind in types.items() if kind in kinds and column.strip().lower() == name]
        if found:
            yield name if name in found else found[0]


def find_image(types: Mapping[str, ColumnType], table: str, *, paths: bool) -> str:
    """The image column of `find_columns`; `table` begins the message of its error."""
    of_bytes = [name for name, kind in types.items() if kind == "bytes"]
    named = list(_named(types, _IMAGES, "bytes")) or (of_bytes if len(of_bytes) == 1 else [])
    if not of_bytes and paths:
        named = list(_named(types, _IMAGES, "text"))
    if named:
        return named[0]
    few = "several could be the image" if of_bytes else "none of them holds images"
    raise DistilvlError(f"{table}: {few}.", "Say which one it is: ?image=COLUMN.")


def find_captions(types: Mapping[str, ColumnType], image: str, table: str) -> tuple[str, ...]:
    """The caption columns of `find_columns`, beside the image column; `table` begins the message of its error."""
    texts = {name: kind for name, kind in types.items() if kind == "text" and name != image}
    found = list(_named(texts, _CAPTIONS, "text"))
    family = tuple(name for name in texts if _NUMBERED.fullmatch(name))
    if found and found[0].strip().lower() in ("captions", "caption"):
        return (found[0],)
    candidates = [(name,) for name in found] + ([family] if family else [])
    if len(candidates) == 1:
        return candidates[0]
    few = "several could be the captions" if candidates else "none of them is known to hold captions"
    raise DistilvlError(f"{table}: {few}.", "Say which: ?caption=COLUMN, or ?caption=FIRST&caption=SECOND.")


def column_types(schema: Any, extra: str) -> dict[str, ColumnType]:
    """What each column of a `pyarrow.Schema` holds, in order; `extra` is the extra that would install pyarrow."""
    types = require("pyarrow", extra=extra).types
    return {field.name: _column_type(field.type, types) for field in schema}


def _column_type(kind: Any, types: Any) -> ColumnType:
    def is_one_of(*names: str) -> bool:  # older pyarrow does not know all of them
        return any(test(kind) for name in names if (test := getattr(types, f"is_{name}", None)))

    if is_one_of("binary", "large_binary", "binary_view", "fixed_size_binary"):
        return "bytes"
    if types.is_struct(kind):
        names = [kind.field(k).name for k in range(kind.num_fields)]
        return "bytes" if "bytes" in names else "text" if "raw" in names or "path" in names else "other"
    if is_one_of("string", "large_string", "string_view"):
        return "text"
    if is_one_of("dictionary", "list", "large_list", "list_view", "large_list_view", "fixed_size_list"):
        return "text" if _column_type(kind.value_type, types) == "text" else "other"
    return "number" if types.is_integer(kind) else "other"


@dataclass(slots=True)
class Row:
    """What one line or row of a list says, not yet checked; or all that those about one image say, checked."""

    where: str  # how an error message calls the row
    key: str  # which image it is about, such as its path; also the `image_id`, unless that is given
    image: ImageSource
    captions: list[Any]
    split: Any = None
    image_id: Any = None


def captions_in(value: Any) -> list[Any]:
    """The captions in a cell: a text, a list of texts, or Karpathy's `{"raw": text}` alone or in a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [item.get("raw") if isinstance(item, Mapping) else item for item in values]


def table_row(
    where: str, key: str, image: ImageSource, values: Mapping[str, Any], columns: Columns, split: str | None
) -> Row:
    """What a row says; `split` counts where the table has no column for it. An empty split or id is a fault."""
    for name in filter(None, (columns.split, columns.image_id)):
        if values[name] is None or values[name] == "":
            problem, remedy = f"{where}: the column {name!r} is empty", "Fill it in every row, or leave it out."
            raise BadItemError(problem, remedy, where, f"nothing in the column {name!r}")
    captions = [caption for name in columns.captions for caption in captions_in(values[name])]
    if columns.split is not None:
        split = usual_split(values[columns.split])
    return Row(where, str(values[columns.image_id]) if columns.image_id else key, image, captions, split)


def merge_rows(rows: Iterable[Row], source: str, faults: Faults) -> list[Record]:
    """One record an image, in order of first appearance, with the captions of all its rows.

    Without any split the images are divided by a hash of their id (`split_of`). Rows with a caption that is no string,
    or that contradict an earlier row of their image, and images without a split beside images with one, are faults.
    """
    entries: dict[str, Row] = {}
    for row in rows:
        place = PurePosixPath(row.key).as_posix() if "./" in row.key or "//" in row.key else row.key
        with faults:  # all that the row says; none of it if any of it is bad
            entry = entries.get(place) or Row(row.where, row.key, row.image, [])
            captions = clean_captions(row.captions, row.where)
            split = _agreed(entry.split, row.split, "split", row.where)
            entry.image_id = _agreed(entry.image_id, row.image_id, "image_id", row.where)
            entry.captions += captions
            entry.split, entries[place] = split, entry
    some = any(entry.split for entry in entries.values())
    records = []
    for entry in entries.values():
        image_id = entry.image_id or entry.key
        if entry.split or not some:
            records.append(Record(image_id, entry.image, tuple(entry.captions), entry.split or split_of(image_id)))
        else:
            problem, remedy = f"image {entry.key!r} has no split, but others have", "Give every image a split, or none."
            reason = "no split, where other images have one"
            faults.add(BadItemError(f"{source}: {problem}", remedy, entry.image.name, reason))
    return records


def _agreed(old: str | None, new: Any, what: str, where: str) -> str | None:
    if new is None:
        return old
    value = str(new) if isinstance(new, (str, int)) else ""
    if not value or not is_unicode(value):
        raise BadItemError(f"{where}: {what!r} is not a name", "Write it in quotes.", where, f"no name for its {what}")
    if old is not None and value != old:
        problem = f"{where}: {what} {value!r} contradicts {old!r} of an earlier line of the same image"
        reason = f"another {what} than an earlier row of the image"
        raise BadItemError(problem, f"Give an image one {what}.", where, reason)
    return value
