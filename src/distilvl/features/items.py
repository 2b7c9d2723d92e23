"""The distinct items of a dataset: what a teacher has to be asked."""

from __future__ import annotations

from distilvl.data.records import ImageSource, PairDataset
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key, text_key


def unique_images(dataset: PairDataset, *, skip_bad: bool = False) -> tuple[dict[bytes, list[ImageSource]], list[str]]:
    """Distinct images by content, in order of first appearance, each with all places it is found in.

    Reads every image once and keeps none.

    Returns:
        key -> sources with those bytes, and the names of images that cannot be read (always empty unless
        `skip_bad`).

    Raises:
        BadImageError: an image that cannot be read, unless `skip_bad`.
    """
    sources: dict[bytes, list[ImageSource]] = {}
    unreadable: list[str] = []
    for record in dataset:
        try:
            data = record.image.read()
        except BadImageError:
            if not skip_bad:
                raise
            unreadable.append(record.image.name)
            continue
        sources.setdefault(image_key(data), []).append(record.image)
    return sources, unreadable


def unique_captions(dataset: PairDataset) -> dict[bytes, str]:
    """Distinct captions, in order of first appearance: key -> caption."""
    return {text_key(caption): caption for record in dataset for caption in record.captions}
