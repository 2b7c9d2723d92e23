"""An inspection for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from distilvl.data.inspection.report import Copy, Inspection, SharedCaption, Spread

_LETTERS = 60  # of a caption
_SHOWN = 10  # of bad files and of groups; --json has all


def as_text(inspection: Inspection) -> str:
    """The findings, some 20 to 60 lines; long lists are cut, with how many there are."""
    return "\n".join(_lines(inspection))


def _lines(found: Inspection) -> Iterator[str]:
    yield f"{found.name}: {sum(found.images.values()):,} images, {sum(found.captions.values()):,} captions"
    for split in dict.fromkeys([*found.images, *found.captions]):
        yield f"  {split:<12}{found.images.get(split, 0):>9,} images {found.captions.get(split, 0):>9,} captions"
    yield from _spread("captions an image", found.captions_per_image)
    yield from _histogram({str(count): images for count, images in found.images_by_captions.items()}, "images")
    yield from _spread("words a caption", found.words)
    yield from _histogram(found.captions_by_words, "captions")
    yield from _spread("width", found.width)
    yield from _spread("height", found.height)
    yield from _list("most frequent sizes", found.sizes)
    yield from _list("formats", found.formats)
    yield f"bad files: {len(found.bad):,}"
    yield from _cut([f"  {bad.name}: {' '.join(bad.reason.split())}" for bad in found.bad])
    yield f"left out by the reader: {len(found.left_out):,}"
    for line in found.left_out.lines():
        yield f"  {line}"
    yield f"captions that several images have, word by word: {_shared(found.shared_captions)}"
    yield from _cut([_shared_caption(one) for one in found.shared_captions])
    yield f"exact duplicates: {_count(found.exact)}"
    yield from _cut([_group(group) for group in found.exact])
    yield f"near duplicates (at most {found.near_bits} of 64 bits differ): {_count(found.near)}"
    yield from _cut([_group(group) for group in found.near])
    yield "overlap of splits:" + ("" if found.overlaps else " none")
    for overlap in found.overlaps:
        first, second = overlap.splits
        yield f"  of {second}, {overlap.exact:,} images are in {first} too, and {overlap.near:,} more nearly so"


def _spread(what: str, spread: Spread | None) -> Iterator[str]:
    if spread is not None:
        yield f"{what}: {spread.min:g} to {spread.max:g}, mean {spread.mean:g}, median {spread.median:g}"


def _histogram(counts: Mapping[str, int], unit: str) -> Iterator[str]:
    most = max(counts.values(), default=0)
    if len(counts) < 2 or not most:
        return
    rows = [(name, count) for name, count in counts.items() if count]
    for name, count in rows[: 2 * _SHOWN]:
        yield f"  {name:>8} {'#' * max(1, round(30 * count / most)):<30} {count:,} {unit}"
    if len(rows) > 2 * _SHOWN:
        yield f"  ... and {len(rows) - 2 * _SHOWN:,} more rows"


def _list(what: str, counts: Mapping[str, int]) -> Iterator[str]:
    if counts:
        yield f"{what}: " + ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _count(groups: Sequence[Sequence[Copy]]) -> str:
    return f"{len(groups):,} groups, {sum(map(len, groups)):,} images" if groups else "none"


def _shared(captions: Sequence[SharedCaption]) -> str:
    images = {copy.image_id for one in captions for copy in one.images}
    return f"{len(captions):,} captions, {len(images):,} images" if captions else "none"


def _shared_caption(one: SharedCaption) -> str:
    words = " ".join(one.caption.split())
    short = words if len(words) <= _LETTERS else f"{words[: _LETTERS - 1]}…"
    return f'  "{short}":{_group(one.images)[1:]}'


def _group(group: Sequence[Copy]) -> str:
    shown = ", ".join(f"{copy.image_id} ({copy.split})" for copy in group[:_SHOWN])
    return f"  {shown}" + (f" and {len(group) - _SHOWN:,} more" if len(group) > _SHOWN else "")


def _cut(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  ... and {len(lines) - _SHOWN:,} more (--json has all)"
