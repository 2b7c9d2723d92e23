"""Which columns of a table are the image, the captions, the split and the image's id; by name and by type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distilvl.errors import DistilvlError

ColumnType = Literal["bytes", "text", "number", "other"]
"""What a column holds: encoded images (bytes, or a struct with `bytes`), texts or lists of texts, whole numbers."""

_IMAGES = (
    *("image", "img", "jpg", "png", "image_bytes", "image_path", "file_name", "filename", "path", "image_name"),
    *("filepath", "file_path", "file"),
)
_CAPTIONS = (
    *("captions", "caption", "sentences", "sentences_raw", "sentence", "texts", "text", "alt_text", "description"),
    *("comment", "txt"),
)
_IDS = ("image_id", "img_id", "imgid")
_NUMBERED = re.compile(r"(caption|sentence|text)s?[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        image: encoded images, or paths.
        captions: at least one; each a text or a list of texts.
        split: names of splits, if there is such a column.
        image_id: what tells images apart, if there is such a column.
    """

    image: str
    captions: tuple[str, ...]
    split: str | None
    image_id: str | None


@dataclass(frozen=True)
class Choice:
    """Columns, or keys of JSON lines, that the user has named; what is empty is found by name and type.

    Attributes:
        image: the image column.
        captions: caption columns.
        split: the column of splits.
        image_id: the column of ids.
    """

    image: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None
    image_id: str | None = None


NO_CHOICE = Choice()


def find_columns(types: Mapping[str, ColumnType], where: str, chosen: Choice = NO_CHOICE, *, paths: bool) -> Columns:
    """The columns that a reader needs.

    An image column is one of bytes with a usual name (`image`, `img`, `jpg`, ...), or the only one of bytes, or,
    where `paths` are read, one of texts with a usual name. The captions are `captions`, `caption` or another usual
    name, or a numbered family such as `caption_0` to `caption_4`. `split`, and `image_id`, `img_id` or `imgid`, are
    taken where they are there. Usual names may be in capitals.

    Args:
        types: of all columns, in order.
        where: how an error message calls the table.
        chosen: the user's own choice.
        paths: whether a column of texts can be one of image paths.

    Raises:
        DistilvlError: no such column, several that could be meant, or a choice that the table does not have or that
            is of another type; names the table's columns.
    """
    table = f"{where} has the columns {', '.join(f'{name} ({kind})' for name, kind in types.items()) or 'none'}"
    image = chosen.image if chosen.image is not None else find_image(types, table, paths=paths)
    texts = chosen.captions or find_captions(types, image, table)
    _require(types, image, ("bytes", "text") if paths else ("bytes",), table, "image")
    for name in texts:
        _require(types, name, ("text",), table, "caption")
    split, key = chosen.split, chosen.image_id
    if split is not None:
        _require(types, split, ("text",), table, "split")
    if key is not None:
        _require(types, key, ("text", "number"), table, "image_id")
    return Columns(
        image,
        texts,
        split or next(_named(types, ("split",), "text"), None),
        key or next(_named(types, _IDS, "text", "number"), None),
    )


def _named(types: Mapping[str, ColumnType], usual: Sequence[str], *kinds: ColumnType) -> Iterator[str]:
    """Columns of these kinds with a usual name, in the order of the names; one in small letters before others."""
    for name in usual:
        found = [column for column, kind in types.items() if kind in kinds and column.strip().lower() == name]
        if found:
            yield name if name in found else found[0]


def captions_in(value: Any) -> list[Any]:
    """The captions in a cell: a text, a list of texts, or Karpathy's `{"raw": text}` alone or in a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [item.get("raw") if isinstance(item, Mapping) else item for item in values]


def find_image(types: Mapping[str, ColumnType], table: str, *, paths: bool) -> str:
    """The image column of `find_columns`; `table` begins the message of its error."""
    of_bytes = [name for name, kind in types.items() if kind == "bytes"]
    named = list(_named(types, _IMAGES, "bytes"))
    if not named and len(of_bytes) == 1:
        named = of_bytes
    if not named and not of_bytes and paths:
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


def _require(types: Mapping[str, ColumnType], name: str, kinds: Sequence[str], table: str, what: str) -> None:
    if name not in types:
        raise DistilvlError(f"{table}, not {name!r}.", f"Name another {what} column.")
    if types[name] not in kinds:
        raise DistilvlError(f"{table}: {name!r} is no {what} column.", f"It has to hold {' or '.join(kinds)}.")
