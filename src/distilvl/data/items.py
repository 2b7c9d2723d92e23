"""The distinct items of a dataset: what a teacher has to encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from distilvl.data.left_out import NOT_READ
from distilvl.data.records import ImageSource, PairDataset, UnpairedDataset
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key, text_key

Items: TypeAlias = PairDataset | UnpairedDataset
"""What a teacher can encode: for it, pairs make no difference."""


def images_of(dataset: Items) -> list[tuple[str, ImageSource]]:
    """All images with their `image_id`s, in order."""
    entries = dataset.images if isinstance(dataset, UnpairedDataset) else dataset
    return [(entry.image_id, entry.image) for entry in entries]


def captions_of(dataset: Items) -> Sequence[str]:
    """All captions, in order, some perhaps more than once."""
    return dataset.texts if isinstance(dataset, UnpairedDataset) else dataset.captions


def unique_images(dataset: Items, *, skip_bad: bool = False) -> tuple[dict[bytes, list[ImageSource]], dict[str, str]]:
    """Distinct images by content, in order of first appearance, each with all places it is found in.

    Reads every image once and keeps none.

    Returns:
        key -> sources with those bytes; and name -> reason of the images that cannot be read (none unless
        `skip_bad`).

    Raises:
        BadImageError: an image that cannot be read, unless `skip_bad`.
    """
    sources: dict[bytes, list[ImageSource]] = {}
    unreadable: dict[str, str] = {}
    for _, image in images_of(dataset):
        try:
            data = image.read()
        except BadImageError as error:
            if not skip_bad:
                raise
            unreadable[image.name] = error.reason or NOT_READ
            continue
        sources.setdefault(image_key(data), []).append(image)
    return sources, unreadable


def unique_captions(dataset: Items) -> dict[bytes, str]:
    """Distinct captions, in order of first appearance: key -> caption."""
    return {text_key(caption): caption for caption in captions_of(dataset)}
