"""One pass over the images of a dataset: each is read, decoded and reduced to what an inspection needs of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from distilvl.data.inspection.perceptual import perceptual_hash, thumbnail
from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key
from distilvl.pictures import decode_image, full_size, read_header
from distilvl.progress import progress

_BLOCK = 256
_WORKERS = min(8, os.cpu_count() or 1)  # Pillow decodes outside Python's lock


@dataclass(frozen=True)
class Picture:
    """What is kept of an image, some 400 bytes: 100,000 of them take 40 MB.

    Attributes:
        key: content key of the file.
        size: width and height, upright.
        format: such as `JPEG`.
        hash: `perceptual_hash`.
        thumbnail: (8, 8, 3).
    """

    key: bytes
    size: tuple[int, int]
    format: str
    hash: int
    thumbnail: npt.NDArray[np.uint8]


def look_at(images: Sequence[ImageSource], name: str) -> list[Picture | BadImageError]:
    """Every image reduced, or why it cannot be decoded, in order; with a progress bar named after the dataset."""
    found: list[Picture | BadImageError] = []
    with ThreadPoolExecutor(_WORKERS) as pool, progress(f"looking at {name}", len(images)) as ticker:
        for block in _blocks(images):
            found += pool.map(_look, block)
            ticker.advance(len(block))
    return found


def _blocks(images: Sequence[ImageSource]) -> Iterator[list[ImageSource]]:
    left = iter(images)
    while block := list(islice(left, _BLOCK)):
        yield block


def _look(source: ImageSource) -> Picture | BadImageError:
    try:
        data = source.read()
        image = decode_image(data, source.name)
    except BadImageError as error:
        return error
    return Picture(
        image_key(data),
        full_size(image),
        read_header(data, source.name).format,
        perceptual_hash(image),
        thumbnail(image),
    )
