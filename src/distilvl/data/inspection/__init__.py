"""What a dataset holds, before anything is trained on it: counts, sizes, bad files, duplicates, overlap of splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from distilvl.data.inspection.duplicates import (
    MAX_DISTANCE,
    THUMBNAIL,
    equal_groups,
    near_groups,
    perceptual_hash,
    thumbnail,
)
from distilvl.data.inspection.report import BadFile, Copy, Inspection, Overlap, SharedCaption, Spread, as_dict, as_text
from distilvl.data.left_out import MISSING
from distilvl.data.records import ImageSource, PairDataset
from distilvl.data.unpaired import UnpairedDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.hashes import image_key, words_key
from distilvl.io.prefetch import prefetched
from distilvl.io.progress import progress
from distilvl.pictures import decode_image, full_size, read_header

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
    with progress(f"looking at {name}", len(images)) as ticker:
        for one in prefetched(_look, images, workers=_WORKERS, window=8 * _WORKERS):
            found.append(one)
            ticker.advance()
    return found


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


NEAR_BITS = 8
"""Bits of 64 in which near duplicates may differ; of copies saved again with 2 % cut off each side, 97 % are within."""

_WORD_EDGES = (5, 10, 20, 40, 80)
_UNPAIRED = "unpaired"


def inspect_dataset(data: PairDataset | UnpairedDataset, *, near_bits: int = NEAR_BITS) -> Inspection:
    """Count, measure and compare all images and captions of `data`. Bad images are findings, not errors.

    Load the data with `skip_bad`, so that what cannot be used is reported with the rest.

    Args:
        data: what to look at; unpaired data is one split, `unpaired`.
        near_bits: in how many bits of their perceptual hashes near duplicates may differ, 0 to 15.

    Raises:
        DistilvlError: `near_bits` is out of range.
    """
    if not 0 <= near_bits <= MAX_DISTANCE:
        raise DistilvlError(f"near duplicates cannot differ in {near_bits} bits.", f"Choose 0 to {MAX_DISTANCE}.")
    if isinstance(data, PairDataset):
        copies = [Copy(record.image_id, record.split) for record in data]
        captions = [(record.split, caption) for record in data for caption in record.captions]
        counts = [len(record.captions) for record in data]
        sources = [record.image for record in data]
    else:
        copies = [Copy(image.image_id, _UNPAIRED) for image in data.images]
        captions, counts = [(_UNPAIRED, text) for text in data.texts], []
        sources = [image.image for image in data.images]
    found = look_at(sources, data.name)
    bad = [BadFile(name, "", f"{MISSING}.") for name in data.left_out.names.get(MISSING, ())]
    for source, copy, look in zip(sources, copies, found, strict=True):
        if isinstance(look, BadImageError):
            bad.append(BadFile(source.name, copy.split, look.args[0]))
    good = [(copy, look) for copy, look in zip(copies, found, strict=True) if isinstance(look, Picture)]
    pictures, kept = [picture for _, picture in good], [copy for copy, _ in good]
    exact, near = _duplicates(pictures, near_bits)
    words = [len(caption.split()) for _, caption in captions]
    widths, heights = ([picture.size[axis] for picture in pictures] for axis in (0, 1))
    return Inspection(
        name=data.name,
        images=dict(Counter(copy.split for copy in copies)),
        captions=dict(Counter(split for split, _ in captions)),
        captions_per_image=Spread.of(counts),
        images_by_captions=dict(sorted(Counter(counts).items())),
        words=Spread.of(words),
        captions_by_words=_by_words(words),
        width=Spread.of(widths),
        height=Spread.of(heights),
        sizes=dict(Counter(f"{w} x {h}" for w, h in zip(widths, heights, strict=True)).most_common(10)),
        formats=dict(Counter(picture.format for picture in pictures).most_common()),
        bad=tuple(bad),
        left_out=data.left_out,
        shared_captions=_shared_captions(data) if isinstance(data, PairDataset) else (),
        exact=_named(exact, kept),
        near=_named(near, kept),
        near_bits=near_bits,
        overlaps=_overlaps(exact, near, kept),
    )


def _shared_captions(data: PairDataset) -> tuple[SharedCaption, ...]:
    holders: dict[str, list[int]] = {}
    spelt: dict[str, str] = {}
    for row, record in enumerate(data):
        for caption in record.captions:
            key = words_key(caption)
            spelt.setdefault(key, caption)
            rows = holders.setdefault(key, [])
            if not rows or rows[-1] != row:
                rows.append(row)
    return tuple(
        SharedCaption(spelt[key], tuple(Copy(data[row].image_id, data[row].split) for row in rows))
        for key, rows in holders.items()
        if len(rows) > 1
    )


def _duplicates(pictures: Sequence[Picture], near_bits: int) -> tuple[list[list[int]], list[list[int]]]:
    keys = [picture.key for picture in pictures]
    hashes = np.asarray([picture.hash for picture in pictures], dtype=np.uint64)
    thumbnails = np.zeros((len(pictures), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    for row, picture in enumerate(pictures):
        thumbnails[row] = picture.thumbnail
    return equal_groups(keys), near_groups(hashes, thumbnails, keys, near_bits)


def _named(groups: Iterable[Sequence[int]], copies: Sequence[Copy]) -> tuple[tuple[Copy, ...], ...]:
    return tuple(tuple(copies[row] for row in group) for group in groups)


def _overlaps(exact: list[list[int]], near: list[list[int]], copies: Sequence[Copy]) -> tuple[Overlap, ...]:
    """Pairs of splits that share images; of an exact group, near copies of its first count for all of it."""
    same = {group[0]: group for group in exact}
    whole = [[member for row in group for member in same.get(row, [row])] for group in near]
    splits = list(dict.fromkeys(copy.split for copy in copies))
    found = []
    for first, second in combinations(splits, 2):
        equal = _shared(exact, copies, first, second)
        alike = _shared(whole, copies, first, second) - equal
        if equal or alike:
            found.append(Overlap((first, second), len(equal), len(alike)))
    return tuple(found)


def _shared(groups: Iterable[Sequence[int]], copies: Sequence[Copy], first: str, second: str) -> set[int]:
    """Rows of the split `second` in a group that also has a row of `first`."""
    shared: set[int] = set()
    for group in groups:
        if any(copies[row].split == first for row in group):
            shared.update(row for row in group if copies[row].split == second)
    return shared


def _by_words(words: Sequence[int]) -> dict[str, int]:
    """How many captions lie in each range of lengths, empty ranges included."""
    edges = [0, *_WORD_EDGES]
    names = [f"{low + 1}-{high}" for low, high in pairwise(edges)] + [f"over {edges[-1]}"]
    ranges = Counter(int(place) for place in np.searchsorted(_WORD_EDGES, words))
    return {name: ranges[k] for k, name in enumerate(names)}


__all__ = ["NEAR_BITS", "Inspection", "as_dict", "as_text", "inspect_dataset"]
