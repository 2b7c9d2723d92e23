"""Copies of one picture as one hit, so that they do not fill the first places.

Copies are files of the same bytes, which share their id. Nothing else that an index stores tells equal pixels from
nearly equal ones: two pictures that differ in a small spot have the same size, and may have the same thumbnail and row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.listing import on_disk
from distilvl.errors import BadImageError, DistilvlError, OptionError
from distilvl.models.encoder import Encoder, Rows
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, upright_rgb
from distilvl.search.filters import one_of
from distilvl.search.records import Hit
from distilvl.search.table import PhotoTable

ImageQuery = Image.Image | bytes | str | Path
"""Pixels, encoded bytes, or a file."""


_EVEN = 0.5


def require_types(text: object, top: object, folder: object, since: object, until: object) -> None:
    """`OptionError` for a value that is of another type than `Index.search` takes."""
    if text is not None and not isinstance(text, str):
        raise OptionError("text", f"text is {text!r:.100}, not a string.", "Put it in quotes.")
    if isinstance(top, bool) or not isinstance(top, int | np.integer):
        raise OptionError("top", f"top is {top!r:.100}, not a whole number.", "Say how many photographs.")
    if folder is not None and not isinstance(folder, str | Path):
        raise OptionError("folder", f"folder is {folder!r:.100}, not a string or a Path.", "Name a folder.")
    for option, value in (("since", since), ("until", until)):
        if value is not None and not isinstance(value, str | date):
            message = f"{option} is {value!r:.100}, not a string or a date."
            raise OptionError(option, message, "Put it in quotes, as in '2021-07'.")


def require_both(weight: float | None, text: str | None, image: ImageQuery | None, like: str | None) -> None:
    """`OptionError` if a weight is given where it would do nothing: without a text and a picture."""
    if weight is None or (text is not None and (image is not None or like is not None)):
        return
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise OptionError("weight", f"the text's weight is {weight!r:.100}.", "It must be between 0 and 1.")
    message = "weight is the text's share of a query with both a text and a picture, and there are not both."
    raise OptionError("weight", message, "Leave weight out, or give both.")


def query_row(
    encoder: Callable[[], Encoder],
    row_of: Callable[[str], Rows],
    text: str | None,
    image: ImageQuery | None,
    like: str | None,
    weight: float | None,
) -> Rows:
    """The unit row (D,) of a question.

    Args:
        encoder: gives the model; called only if something must be encoded.
        row_of: gives the row of an id.
        text: what photographs should show.
        image: a picture they should be like.
        like: the same, by its id; not together with `image`.
        weight: of text and picture together, the text's share (a half if None): the query is the weighted sum of their
            unit rows.

    Raises:
        DistilvlError: nothing to search for, an unknown id, a bad weight or picture.
    """
    if image is not None and like is not None:
        raise OptionError("like", "two pictures are given.", "Give either a picture or the id of one.")
    weight = _EVEN if weight is None else weight
    if not 0 <= weight <= 1:
        raise OptionError("weight", f"the text's weight is {weight}.", "It must be between 0 and 1.")
    if text is not None and not text.strip():
        raise OptionError("text", "the text to search for is empty.", "Say what the photograph should show.")
    pixels = None if image is None else _pixels(image)  # before the model, which takes longer to load
    rows = []
    if text is not None:
        rows.append(encoder().encode_texts([text])[0])
    if like is not None:
        rows.append(row_of(like))
    elif pixels is not None:
        rows.append(encoder().encode_images([pixels])[0])
    if not rows:
        raise DistilvlError("there is nothing to search for.", "Give a text, a picture, or both.")
    return rows[0] if len(rows) == 1 else _unit(weight * rows[0] + (1 - weight) * rows[1])


def given_row(vector: Rows, dim: int) -> Rows:
    """`vector` as a unit row (D,); `DistilvlError` if it has not the width `dim`, or is zero or not finite."""
    row = np.asarray(vector, dtype=np.float32)
    if row.shape != (dim,):
        raise DistilvlError(f"the query has the shape {row.shape}.", f"It must be ({dim},).")
    return _unit(row)


def _unit(row: Rows) -> Rows:
    norm = float(np.linalg.norm(row))
    if not (np.isfinite(norm) and norm > 0):
        raise DistilvlError("the query is zero or not finite.", "Choose another weight or another query.")
    return np.asarray(row / norm, dtype=np.float32)


def _pixels(image: ImageQuery) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image, "the picture")
    try:
        data = image if isinstance(image, bytes) else on_disk(Path(image)).read_bytes()
        return decode_image(data, "the picture" if isinstance(image, bytes) else str(image))
    except OSError as error:
        raise OptionError("image", f"cannot read {image!s}: {error.strerror or error}.", "Give a picture.") from error
    except BadImageError as error:
        # The advice is about an option of other commands.
        raise OptionError("image", str(error).removesuffix(BAD_IMAGE_REMEDY).strip(), "Give another one.") from error


_MORE = 16  # rows beyond those asked for, so that a few copies cost no second look
_GROWTH = 4
_ENOUGH = 10_000
"""Rows; a model that gives one row for everything makes all pictures look like copies, and is not followed further."""

# A picture that was encoded once more differs by the rounding of the batches.
_SAME_SCORE = 1e-5


def nearest_pictures(
    table: PhotoTable, vector: npt.NDArray[np.float32], conditions: Sequence[str], top: int, without: str | None = None
) -> list[Hit]:
    """The `top` different pictures that meet all `conditions` and are most similar to a unit row (D,), best first.

    Each look leaves out what the ones before have found, and goes through more rows: a thousand copies of one picture
    cost one further look, and pictures without copies none. With `without`, the picture of that id and its copies are
    left out.
    """
    files: dict[str, list[Hit]] = {}
    amount, looks = top + _MORE, 0
    while True:
        others = [f"NOT ({one_of('id', files)})"] if files else []
        found = table.nearest(vector, [*conditions, *others], amount)
        looks += 1
        for hit in found:
            files.setdefault(hit.id, []).append(hit)
        pictures = sorted(
            (_first(hits) for key, hits in files.items() if key != without), key=lambda hit: (-hit.score, hit.path)
        )
        best = pictures[:top]
        if len(found) < amount or (len(best) == top and (amount > _ENOUGH or _is_whole(best[-1], found))):
            break
        amount *= _GROWTH
    # Of one look all copies are there; later ones left out those of pictures that were known.
    paths = {key: [hit.path for hit in hits] for key, hits in files.items()}
    if looks > 1:
        paths |= table.paths([hit.id for hit in best], conditions)
    return [_one(hit, paths[hit.id]) for hit in best]


def _is_whole(hit: Hit, found: list[Hit]) -> bool:
    """Whether no copy of a hit can be among the rows that were not looked at; copies have equal scores."""
    return hit.score - found[-1].score > _SAME_SCORE


def _first(hits: list[Hit]) -> Hit:
    """The first of one picture's files, by path, with the best of their scores."""
    return replace(min(hits, key=lambda hit: hit.path), score=max(hit.score for hit in hits))


def _one(hit: Hit, paths: list[str]) -> Hit:
    every = sorted(paths)
    return replace(hit, path=every[0], paths=tuple(every))
