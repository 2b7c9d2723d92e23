"""The row that photographs are compared with: of a text, a picture, both, or as given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from distilvl.data.composition import on_disk
from distilvl.errors import BadImageError, DistilvlError, OptionError
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, upright_rgb
from distilvl.search.encoder import Encoder, Rows

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
