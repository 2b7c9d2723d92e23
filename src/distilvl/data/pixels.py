"""Pixels decoded once: each image is read, hashed, decoded and resized a single time and kept as uint8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.decoding import Decoding, only_images
from distilvl.data.left_out import LeftOut
from distilvl.features.items import Items
from distilvl.features.views import Views

Pixels = npt.NDArray[np.uint8]
Resize = Callable[[Sequence[Image.Image]], Pixels]


@dataclass(frozen=True)
class PixelCache:
    """A dataset's images at the student's size; K views of each, or the whole one (K = 1).

    Attributes:
        dataset: the images that could be decoded, in order.
        keys: content hash of each image, n of them.
        pixels: (n * K, 3, H, W) uint8; row i * K + v is view v of image i, view 0 the whole one.
        left_out: images that could not be decoded; `dataset.left_out` is what its reader passed over.
    """

    dataset: Items
    keys: list[bytes]
    pixels: Pixels
    left_out: LeftOut


def decode_pixels(
    dataset: Items,
    resize: Resize,
    *,
    skip_bad: bool = False,
    views: Views | None = None,
    at_least: int | None = None,
) -> PixelCache:
    """Read every image of `dataset` once.

    Args:
        dataset: what to read, paired or not.
        resize: the student's own preprocessing, images to (n, 3, H, W) uint8.
        skip_bad: leave undecodable images out and count them, instead of stopping.
        views: cut these out of each image before its preprocessing, as before the teacher's.
        at_least: of large JPEGs, decode no more than this takes; see `decode_image`.

    Raises:
        BadImageError: the first undecodable image, unless `skip_bad`; or all are.
    """
    decoding = Decoding(dataset, skip_bad, "decoding images", at_least)
    pixels: Pixels | None = None
    done = 0
    for block in pixel_blocks(decoding, resize, views):
        if pixels is None:
            pixels = np.empty((len(dataset) * views_of_each(views), *block.shape[1:]), dtype=np.uint8)
        pixels[done : done + len(block)] = block
        done += len(block)
    assert pixels is not None  # `Decoding` raises where no image is left
    return PixelCache(only_images(dataset, decoding.rows), decoding.keys, pixels[:done], decoding.left_out)


def pixel_blocks(decoding: Decoding, resize: Resize, views: Views | None) -> Iterator[Pixels]:
    """What `decode_pixels` puts together, in order, at most 64 images at a time."""
    for images in decoding.blocks():
        yield resize(_views(images, decoding.keys, views))


def views_of_each(views: Views | None) -> int:
    """K, 1 where there are only whole images."""
    return 1 if views is None else views.count


def _views(images: list[Image.Image], keys: list[bytes], views: Views | None) -> list[Image.Image]:
    """The views of `images`, whose keys are the last ones of `keys`."""
    if views is None:
        return images
    return [view.of(image) for image, key in zip(images, keys[-len(images) :], strict=True) for view in views.of(key)]
