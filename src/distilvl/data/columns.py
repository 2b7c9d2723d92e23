"""Which columns of a table are the image, the captions, the split and the image's id; by name and by type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from distilvl.errors import DistilvlError

ColumnType = Literal["bytes", "text", "number", "other"]
"""What a column holds: encoded images (bytes, or a struct with `bytes`), texts or lists of texts, whole numbers."""

_IMAGES = ("image", "img", "jpg", "png", "image_bytes", "image_path", "file_name", "filename", "path")
_CAPTIONS = (
    "captions",
    "caption",
    "sentences",
    "sentences_raw",
    "sentence",
    "texts",
    "text",
    "alt_text",
    "description",
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


def find_columns(
    types: Mapping[str, ColumnType],
    where: str,
    *,
    image: str | None = None,
    captions: Sequence[str] = (),
    paths: bool,
) -> Columns:
    """The columns that a reader needs.

    An image column is one of bytes with a usual name (`image`, `img`, `jpg`, ...), or the only one of bytes, or,
    where `paths` are read, one of texts with a usual name. The captions are `captions`, `caption` or another usual
    name, or a numbered family such as `caption_0` to `caption_4`. `split`, and `image_id`, `img_id` or `imgid`, are
    taken where they are there.

    Args:
        types: of all columns, in order.
        where: how an error message calls the table.
        image: the user's own choice of the image column.
        captions: the user's own choice of caption columns.
        paths: whether a column of texts can be one of image paths.

    Raises:
        DistilvlError: no such column, several that could be meant, or a choice that the table does not have or that
            is of another type; names the table's columns.
    """
    table = f"{where} has the columns {', '.join(f'{name} ({kind})' for name, kind in types.items()) or 'none'}"
    chosen = image if image is not None else _image_column(types, table, paths=paths)
    texts = tuple(captions) or _caption_columns(types, chosen, table)
    _require(types, chosen, ("bytes", "text") if paths else ("bytes",), table, "image")
    for name in texts:
        _require(types, name, ("text",), table, "caption")
    return Columns(
        chosen,
        texts,
        "split" if types.get("split") == "text" else None,
        next((name for name in _IDS if types.get(name) in ("text", "number")), None),
    )


def captions_in(value: Any) -> list[Any]:
    """The captions in a cell: a text, a list of texts, or Karpathy's `{"raw": text}` alone or in a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [item.get("raw") if isinstance(item, Mapping) else item for item in values]


def _image_column(types: Mapping[str, ColumnType], table: str, *, paths: bool) -> str:
    of_bytes = [name for name, kind in types.items() if kind == "bytes"]
    named = [name for name in _IMAGES if name in of_bytes]
    if not named and len(of_bytes) == 1:
        named = of_bytes
    if not named and not of_bytes and paths:
        named = [name for name in _IMAGES if types.get(name) == "text"]
    if named:
        return named[0]
    few = "several could be the image" if of_bytes else "none of them holds images"
    raise DistilvlError(f"{table}: {few}.", "Say which one it is: ?image=COLUMN.")


def _caption_columns(types: Mapping[str, ColumnType], image: str, table: str) -> tuple[str, ...]:
    texts = [name for name, kind in types.items() if kind == "text" and name != image]
    found: Iterable[str] = [name for name in _CAPTIONS if name in texts]
    family = tuple(name for name in texts if _NUMBERED.fullmatch(name))
    certain = next((name for name in found if name in ("captions", "caption")), None)
    if certain is not None:
        return (certain,)
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
