"""What a dataset holds, before anything is trained on it: counts, sizes, bad files, duplicates, overlap of splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from distilvl.data.duplicates import MAX_DISTANCE, Picture, equal_groups, near_groups, read_pictures
from distilvl.data.left_out import HELD, MISSING, LeftOut
from distilvl.data.records import PairDataset, Record, UnpairedDataset, UnpairedImage
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.hashes import words_key

NEAR_BITS = 8
"""Bits of 64 in which near duplicates may differ; of copies saved again with 2 % cut off each side, 97 % are within."""
_WORD_EDGES = (5, 10, 20, 40, 80)
_UNPAIRED = "unpaired"
_LETTERS = 60  # of a caption
_SHOWN = 10  # of bad files and of groups; --json has all


@dataclass(frozen=True)
class Summary:
    """Least, mean, median and largest of some numbers."""

    min: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Summary | None:
        """Of `values`; None if there are none."""
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
    """A caption, as its first image spells it, that several images have, word by word; these, each once."""

    caption: str
    images: tuple[Copy, ...]


@dataclass(frozen=True)
class Overlap:
    """How far two splits share images."""

    splits: tuple[str, str]  # in the dataset's order
    exact: int  # images of the second split whose very file is in the first as well
    near: int  # images of the second split that are near duplicates, not exact ones, of an image in the first


@dataclass(frozen=True)
class Inspection:
    """All findings; the parts about images leave bad files out."""

    name: str
    images: Mapping[str, int]  # of each split, bad ones included; missing files have no split and are not counted
    captions: Mapping[str, int]  # of each split
    captions_per_image: Summary | None  # None for unpaired data
    images_by_captions: Mapping[int, int]  # how many images have 1, 2, ... captions
    words: Summary | None  # of the captions
    captions_by_words: Mapping[str, int]  # how many captions have 1-5, 6-10, ... words
    width: Summary | None  # of the upright images
    height: Summary | None
    sizes: Mapping[str, int]  # the ten most frequent ones, such as `640 x 480`
    formats: Mapping[str, int]
    bad: tuple[BadFile, ...]
    left_out: LeftOut  # by the reader
    # Captions of several images, by their first image; in scoring they are right answers to all of them, unless the
    # ground truth is `pairs`. So are the images of an exact group, whose files are byte-identical.
    shared_captions: tuple[SharedCaption, ...]
    exact: tuple[tuple[Copy, ...], ...]
    near: tuple[tuple[Copy, ...], ...]  # groups of nearly equal pictures, one of each exact group
    near_bits: int  # how many bits of the perceptual hash may differ
    overlaps: tuple[Overlap, ...]  # of each pair of splits that share anything


def inspect_dataset(data: PairDataset | UnpairedDataset, *, near_bits: int = NEAR_BITS) -> Inspection:
    """Count, measure and compare all images and captions of `data`, loaded with `skip_bad`; bad images are findings.

    Unpaired data is one split, `unpaired`. Near duplicates may differ in `near_bits` bits, 0 to 15, of their hashes.
    """
    if not 0 <= near_bits <= MAX_DISTANCE:
        raise DistilvlError(f"near duplicates cannot differ in {near_bits} bits.", f"Choose 0 to {MAX_DISTANCE}.")
    if isinstance(data, PairDataset):
        splits = [record.split for record in data]
        captions = [(record.split, caption) for record in data for caption in record.captions]
        counts = [len(record.captions) for record in data]
    else:
        splits, captions, counts = [_UNPAIRED] * len(data), [(_UNPAIRED, text) for text in data.texts], []
    bad = [BadFile(name, "", f"{MISSING}.") for name in data.left_out.names.get(MISSING, ())]
    pictures: list[Picture] = []
    kept: list[Copy] = []
    entries: Sequence[Record | UnpairedImage] = list(data)
    looks = read_pictures([entry.image for entry in entries], data.name)
    for entry, split, look in zip(entries, splits, looks, strict=True):
        if isinstance(look, BadImageError):
            bad.append(BadFile(entry.image.name, split, look.args[0]))
        else:
            pictures.append(look)
            kept.append(Copy(entry.image_id, split))
    exact, near = equal_groups([picture.key for picture in pictures]), near_groups(pictures, near_bits)
    words = [len(caption.split()) for _, caption in captions]
    widths, heights = ([picture.size[axis] for picture in pictures] for axis in (0, 1))
    return Inspection(
        name=data.name,
        images=dict(Counter(splits)),
        captions=dict(Counter(split for split, _ in captions)),
        captions_per_image=Summary.of(counts),
        images_by_captions=dict(sorted(Counter(counts).items())),
        words=Summary.of(words),
        captions_by_words=_by_words(words),
        width=Summary.of(widths),
        height=Summary.of(heights),
        sizes=dict(Counter(f"{w} x {h}" for w, h in zip(widths, heights, strict=True)).most_common(10)),
        formats=dict(Counter(picture.format for picture in pictures).most_common()),
        bad=tuple(bad),
        left_out=data.left_out,
        shared_captions=_shared_captions(data) if isinstance(data, PairDataset) else (),
        exact=tuple(tuple(kept[row] for row in group) for group in exact),
        near=tuple(tuple(kept[row] for row in group) for group in near),
        near_bits=near_bits,
        overlaps=_overlaps(exact, near, kept),
    )


def _shared_captions(data: PairDataset) -> tuple[SharedCaption, ...]:
    holders: dict[str, tuple[str, dict[int, Copy]]] = {}
    for row, record in enumerate(data):
        for caption in record.captions:
            _, copies = holders.setdefault(words_key(caption), (caption, {}))
            copies[row] = Copy(record.image_id, record.split)
    return tuple(SharedCaption(text, tuple(copies.values())) for text, copies in holders.values() if len(copies) > 1)


def _overlaps(exact: list[list[int]], near: list[list[int]], copies: Sequence[Copy]) -> tuple[Overlap, ...]:
    """Pairs of splits that share images; of an exact group, near copies of its first count for all of it."""
    same = {group[0]: group for group in exact}
    whole = [[member for row in group for member in same.get(row, [row])] for group in near]

    def shared(groups: Iterable[Sequence[int]]) -> set[int]:
        held = (group for group in groups if any(copies[row].split == first for row in group))
        return {row for group in held for row in group if copies[row].split == second}

    found = []
    for first, second in combinations(dict.fromkeys(copy.split for copy in copies), 2):
        equal = shared(exact)
        alike = shared(whole) - equal
        if equal or alike:
            found.append(Overlap((first, second), len(equal), len(alike)))
    return tuple(found)


def _by_words(words: Sequence[int]) -> dict[str, int]:
    names = [f"{low + 1}-{high}" for low, high in pairwise((0, *_WORD_EDGES))] + [f"over {_WORD_EDGES[-1]}"]
    counts = np.bincount(np.searchsorted(_WORD_EDGES, words), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """The inspection in terms of JSON; of what was left out all names that are held, not the first ten alone."""
    return {**asdict(inspection), "left_out": inspection.left_out.as_dict(HELD)}


def as_text(inspection: Inspection) -> str:
    """The findings, some 20 to 60 lines; long lists are cut, with how many there are."""
    return "\n".join(_lines(inspection))


def _lines(found: Inspection) -> Iterator[str]:
    yield f"{found.name}: {sum(found.images.values()):,} images, {sum(found.captions.values()):,} captions"
    for split in dict.fromkeys([*found.images, *found.captions]):
        yield f"  {split:<12}{found.images.get(split, 0):>9,} images {found.captions.get(split, 0):>9,} captions"
    yield from _summary("captions an image", found.captions_per_image)
    yield from _histogram(found.images_by_captions, "images")
    yield from _summary("words a caption", found.words)
    yield from _histogram(found.captions_by_words, "captions")
    yield from _summary("width", found.width)
    yield from _summary("height", found.height)
    for what, counts in (("most frequent sizes", found.sizes), ("formats", found.formats)):
        if counts:
            yield f"{what}: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    yield f"bad files: {len(found.bad):,}"
    yield from _cut([f"  {bad.name}: {' '.join(bad.reason.split())}" for bad in found.bad])
    yield f"left out by the reader: {len(found.left_out):,}"
    for line in found.left_out.lines():
        yield f"  {line}"
    holders = {copy.image_id for one in found.shared_captions for copy in one.images}
    shared = _count(found.shared_captions, "captions", len(holders))
    yield f"captions that several images have, word by word: {shared}"
    captions = [" ".join(one.caption.split()) for one in found.shared_captions]
    short = [words if len(words) <= _LETTERS else f"{words[: _LETTERS - 1]}…" for words in captions]
    told = zip(short, found.shared_captions, strict=True)
    yield from _cut([f'  "{words}":{_group(one.images)[1:]}' for words, one in told])
    yield f"exact duplicates: {_count(found.exact, 'groups', sum(map(len, found.exact)))}"
    yield from _cut([_group(group) for group in found.exact])
    near = _count(found.near, "groups", sum(map(len, found.near)))
    yield f"near duplicates (at most {found.near_bits} of 64 bits differ): {near}"
    yield from _cut([_group(group) for group in found.near])
    yield "overlap of splits:" + ("" if found.overlaps else " none")
    for overlap in found.overlaps:
        first, second = overlap.splits
        yield f"  of {second}, {overlap.exact:,} images are in {first} too, and {overlap.near:,} more nearly so"


def _summary(what: str, of: Summary | None) -> Iterator[str]:
    if of is not None:
        yield f"{what}: {of.min:g} to {of.max:g}, mean {of.mean:g}, median {of.median:g}"


def _histogram(counts: Mapping[Any, int], unit: str) -> Iterator[str]:
    rows = [(name, count) for name, count in counts.items() if count] if len(counts) > 1 else []
    for name, count in rows[: 2 * _SHOWN]:
        bar = "#" * max(1, round(30 * count / max(counts.values())))
        yield f"  {name!s:>8} {bar:<30} {count:,} {unit}"
    if len(rows) > 2 * _SHOWN:
        yield f"  ... and {len(rows) - 2 * _SHOWN:,} more rows"


def _count(found: Sequence[object], unit: str, images: int) -> str:
    return f"{len(found):,} {unit}, {images:,} images" if found else "none"


def _group(group: Sequence[Copy]) -> str:
    shown = ", ".join(f"{copy.image_id} ({copy.split})" for copy in group[:_SHOWN])
    return f"  {shown}" + (f" and {len(group) - _SHOWN:,} more" if len(group) > _SHOWN else "")


def _cut(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  ... and {len(lines) - _SHOWN:,} more (--json has all)"
