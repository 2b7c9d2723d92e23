"""Pixels decoded once: each image is read, hashed, decoded and resized a single time and kept as uint8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.images import decode_image
from distilvl.data.records import PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key
from distilvl.progress import progress

logger = logging.getLogger("distilvl")

Resize = Callable[[Sequence[Image.Image]], npt.NDArray[np.uint8]]
_BLOCK = 64


@dataclass(frozen=True)
class PixelCache:
    """A dataset's images at the student's size.

    Attributes:
        dataset: the records that could be decoded, in order.
        keys: content hash of each image, n of them.
        pixels: (n, 3, H, W) uint8.
        skipped: names of the images that were left out.
    """

    dataset: PairDataset
    keys: list[bytes]
    pixels: npt.NDArray[np.uint8]
    skipped: list[str]


def decode_pixels(dataset: PairDataset, resize: Resize, *, skip_bad: bool = False, workers: int = 2) -> PixelCache:
    """Read every image of `dataset` once.

    Args:
        dataset: what to read.
        resize: the student's own preprocessing, images to (n, 3, H, W) uint8.
        skip_bad: leave undecodable images out and count them, instead of stopping.
        workers: decoding threads (Pillow decodes outside Python's lock).

    Raises:
        BadImageError: the first undecodable image, unless `skip_bad`; or all are.
    """
    kept: list[Record] = []
    keys: list[bytes] = []
    skipped: list[str] = []
    blocks: list[npt.NDArray[np.uint8]] = []
    records = iter(dataset)
    with ThreadPoolExecutor(workers) as pool, progress("decoding images", len(dataset)) as ticker:
        while block := list(islice(records, _BLOCK)):
            images: list[Image.Image] = []
            for record, result in zip(block, pool.map(_read, block), strict=True):
                if isinstance(result, BadImageError):
                    if not skip_bad:
                        raise result
                    skipped.append(record.image.name)
                    continue
                kept.append(record)
                keys.append(result[0])
                images.append(result[1])
            if images:
                blocks.append(resize(images))
            ticker.advance(len(block))
    if not kept:
        raise BadImageError(f"no image of {dataset.name} can be decoded.", "Check the image folder.")
    if skipped:
        logger.warning("skipped %d bad images of %s, the first is %s", len(skipped), dataset.name, skipped[0])
    return PixelCache(PairDataset(dataset.name, tuple(kept)), keys, np.concatenate(blocks), skipped)


def _read(record: Record) -> tuple[bytes, Image.Image] | BadImageError:
    try:
        data = record.image.read()
        return image_key(data), decode_image(data, record.image.name)
    except BadImageError as error:
        return error
