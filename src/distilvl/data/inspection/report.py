"""What an inspection found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distilvl.data.left_out import LeftOut


@dataclass(frozen=True)
class Spread:
    """Least, mean, median and largest of some numbers."""

    min: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Spread | None:
        """The spread of `values`; nothing if there are none."""
        if not values:
            return None
        return cls(min(values), round(float(np.mean(values)), 2), float(np.median(values)), max(values))


@dataclass(frozen=True)
class BadFile:
    """An image that is missing or cannot be decoded."""

    name: str
    split: str
    reason: str


@dataclass(frozen=True)
class Copy:
    """An image in a group of duplicates."""

    image_id: str
    split: str


@dataclass(frozen=True)
class SharedCaption:
    """A caption that several images have, word by word.

    Attributes:
        caption: as its first image spells it.
        images: these images, in order, each once.
    """

    caption: str
    images: tuple[Copy, ...]


@dataclass(frozen=True)
class Overlap:
    """How far two splits share images.

    Attributes:
        splits: the two, in the dataset's order.
        exact: images of the second split whose very file is in the first as well.
        near: images of the second split that are near duplicates, not exact ones, of an image in the first.
    """

    splits: tuple[str, str]
    exact: int
    near: int


@dataclass(frozen=True)
class Inspection:
    """All findings; the parts about images leave bad files out.

    Attributes:
        name: of the dataset.
        images: number of images of each split, bad ones included; missing files have no split and are not counted.
        captions: number of captions of each split.
        captions_per_image: spread over images; nothing for unpaired data.
        images_by_captions: how many images have 1, 2, ... captions.
        words: spread of the captions' lengths in words.
        captions_by_words: how many captions have 1-5, 6-10, ... words.
        width: spread of the upright images' widths.
        height: likewise.
        sizes: the ten most frequent sizes, such as `640 x 480`, with their numbers.
        formats: number of images of each format.
        bad: missing and undecodable images.
        left_out: what the reader passed over, by reason: missing images, those without a caption, other formats, ...
        shared_captions: captions that are equal word by word and belong to several images, by their first image; in
            scoring they are right answers to all of them, unless the ground truth is `pairs`.
        exact: groups of byte-identical files, which are each other's right answers likewise.
        near: groups of nearly equal pictures, one of each exact group.
        near_bits: how many bits of the perceptual hash may differ.
        overlaps: of each pair of splits that share anything.
    """

    name: str
    images: Mapping[str, int]
    captions: Mapping[str, int]
    captions_per_image: Spread | None
    images_by_captions: Mapping[int, int]
    words: Spread | None
    captions_by_words: Mapping[str, int]
    width: Spread | None
    height: Spread | None
    sizes: Mapping[str, int]
    formats: Mapping[str, int]
    bad: tuple[BadFile, ...]
    left_out: LeftOut
    shared_captions: tuple[SharedCaption, ...]
    exact: tuple[tuple[Copy, ...], ...]
    near: tuple[tuple[Copy, ...], ...]
    near_bits: int
    overlaps: tuple[Overlap, ...]


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """The inspection in terms of JSON; of what was left out all names that are held, not the first ten alone."""
    values = asdict(inspection)
    found = inspection.left_out
    reasons = {reason: {"count": count, "names": found.names[reason]} for reason, count in found.counts.items()}
    return {**values, "left_out": {"total": len(found), "reasons": reasons}}
