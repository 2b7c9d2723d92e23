"""Lists of texts and of images: what every `encode_texts` and `encode_images` here takes, and nothing else.

A lone text is a sequence of letters: taken for a list, each letter would get an embedding. So it is refused.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from distilvl.errors import DistilvlError


class NotAListError(DistilvlError, TypeError):
    """One item, or something else, where a list of items belongs; or an item of another kind in the list."""


def list_of_texts(texts: Iterable[str]) -> list[str]:
    """`texts` as a list; any iterable in an order of its own will do. `NotAListError` for one text, or no texts."""
    if isinstance(texts, str):
        raise NotAListError("one text was given where a list of texts belongs.", "Write [text].")
    return _listed(texts, str, "text", "strings")


def list_of_images(images: Iterable[Image.Image]) -> list[Image.Image]:
    """`images` as a list; any iterable in an order of its own will do. `NotAListError` for one image, or no images."""
    if isinstance(images, Image.Image):
        raise NotAListError("one picture was given where a list of pictures belongs.", "Write [image].")
    if isinstance(images, str | PurePath):
        problem = "the name of a file was given where a list of pictures belongs."
        raise NotAListError(problem, "Write [Image.open(path)], with PIL.")
    return _listed(images, Image.Image, "picture", "PIL images")


def _listed(items: Any, kind: type, what: str, wanted: str) -> list[Any]:
    # Their items are letters, numbers, keys, or in no order.
    if isinstance(items, bytes | bytearray | memoryview | Mapping | set | frozenset) or not isinstance(items, Iterable):
        raise NotAListError(f"a {type(items).__name__} was given where a list of {what}s belongs.", "Give a list.")
    if isinstance(items, np.ndarray) and items.ndim != 1:
        shape = items.shape
        raise NotAListError(f"an array of shape {shape} was given where a list of {what}s belongs.", "Give a list.")
    found = list(items)
    for k, item in enumerate(found):
        if not isinstance(item, kind):
            raise NotAListError(f"item {k} is no {what} but a {type(item).__name__}.", f"Give {wanted}.")
    return found
