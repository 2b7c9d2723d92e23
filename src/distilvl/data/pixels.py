"""Pixels decoded once: each image is read, hashed, decoded and resized a single time and kept as uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.decoding import Decoding
from distilvl.data.records import PairDataset

Resize = Callable[[Sequence[Image.Image]], npt.NDArray[np.uint8]]


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


def decode_pixels(dataset: PairDataset, resize: Resize, *, skip_bad: bool = False) -> PixelCache:
    """Read every image of `dataset` once.

    Args:
        dataset: what to read.
        resize: the student's own preprocessing, images to (n, 3, H, W) uint8.
        skip_bad: leave undecodable images out and count them, instead of stopping.

    Raises:
        BadImageError: the first undecodable image, unless `skip_bad`; or all are.
    """
    decoding = Decoding(dataset, skip_bad, "decoding images")
    pixels = np.concatenate([resize(images) for images in decoding.blocks()])
    return PixelCache(decoding.decoded, decoding.keys, pixels, decoding.skipped)
