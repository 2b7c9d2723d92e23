"""A word of warning where a split is too small for its score to say much."""

from __future__ import annotations

from distilvl.data.listing import split_of
from distilvl.data.records import ALL, PairDataset

FEW = 100
"""Below so many images a recall moves by more than a percent with one image."""


def few_images(
    dataset: PairDataset,
    split: str,
    interval: tuple[float, float] | None = None,
    remedy: str | None = None,
    scored: int | None = None,
) -> str | None:
    """What to say of a score on `split`; none where at least `FEW` images are scored.

    Args:
        dataset: the whole one.
        split: of it.
        interval: 95 % interval of RSUM, if known.
        remedy: a sentence on what to do; to score all splits by default, where there are others.
        scored: how many of the split's images are, if not all of them.
    """
    images, total = len(dataset.split(split)), len(dataset)
    if (images if scored is None else scored) >= FEW:
        return None
    by_hash = ", chosen by the hash of their names" if images < total and _divided_by_hash(dataset) else ""
    if remedy is None and images < total:
        remedy = f"--split {ALL} scores all {total:,}, those that a model may have learnt from included."
    if scored is None or scored == images:
        return _said(f"{split} has only {_counted(images)}{by_hash}", interval, remedy)
    return _said(f"only {scored} of the {images:,} images of {split} {_are(scored)} scored", interval, remedy)


def few_arrays(images: int, interval: tuple[float, float] | None = None) -> str | None:
    """The same of `images` rows of features, of which nothing else is known."""
    return None if images >= FEW else _said(f"only {_counted(images)} {_are(images)} scored", interval)


def _said(what: str, interval: tuple[float, float] | None, remedy: str | None = None) -> str:
    coarse = "" if interval is None else f": its 95 % interval of RSUM is {interval[0]:.0f} to {interval[1]:.0f}"
    said = f"{what}; a score on so few is coarse{coarse}."
    return said if remedy is None else f"{said} {remedy}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _counted(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def _divided_by_hash(dataset: PairDataset) -> bool:
    """Whether its splits are those that readers give where a list has none."""
    return len(dataset.splits) > 1 and all(record.split == split_of(record.image_id) for record in dataset)
