"""Lists of texts and of images: what every `encode_texts` and `encode_images` here takes, and nothing else.

A lone text is a sequence of letters, and bytes are one of numbers: taken for a list, each letter would get an
embedding. One for the one item would make the shape of what comes back depend on what was given. So both are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from distilvl.errors import DistilvlError


class NotAListError(DistilvlError, TypeError):
    """One item, or something else, where a list of items belongs; or an item of another kind in the list."""


def list_of_texts(texts: Iterable[str]) -> list[str]:
    """`texts` as a list; any iterable in an order of its own will do.

    Raises:
        NotAListError: one text, or no texts at all.
    """
    if isinstance(texts, str):
        raise NotAListError("one text was given where a list of texts belongs.", "Write [text].")
    found = _listed(texts, "texts")
    for k, text in enumerate(found):
        if not isinstance(text, str):
            raise NotAListError(f"item {k} is no text but a {type(text).__name__}.", "Give strings.")
    return found


def list_of_images(images: Iterable[Image.Image]) -> list[Image.Image]:
    """`images` as a list; any iterable in an order of its own will do.

    Raises:
        NotAListError: one picture, or no PIL images at all.
    """
    if isinstance(images, Image.Image):
        raise NotAListError("one picture was given where a list of pictures belongs.", "Write [image].")
    if isinstance(images, str | PurePath):
        raise NotAListError(
            "the name of a file was given where a list of pictures belongs.", "Write [Image.open(path)], with PIL."
        )
    found = _listed(images, "pictures")
    for k, image in enumerate(found):
        if not isinstance(image, Image.Image):
            raise NotAListError(f"item {k} is no picture but a {type(image).__name__}.", "Give PIL images.")
    return found


def _listed(items: Any, what: str) -> list[Any]:
    # Their items are letters, numbers, keys, or in no order.
    if isinstance(items, bytes | bytearray | memoryview | Mapping | set | frozenset) or not isinstance(items, Iterable):
        raise NotAListError(f"a {type(items).__name__} was given where a list of {what} belongs.", "Give a list.")
    if isinstance(items, np.ndarray) and items.ndim != 1:
        shape = items.shape
        raise NotAListError(f"an array of shape {shape} was given where a list of {what} belongs.", "Give a list.")
    return list(items)
