"""Ask a teacher once for every item of a dataset that its store does not hold yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distilvl.data.crops import Views, with_views
from distilvl.data.items import Items, images_of, unique_captions, unique_images
from distilvl.data.left_out import LeftOut, note_left_out
from distilvl.data.records import ImageSource, PairDataset
from distilvl.extraction.blocks import Block, caption_trial, cut_blocks, fill_captions, fill_images
from distilvl.features.manifest import Manifest
from distilvl.features.store import FeatureStore
from distilvl.io.progress import progress
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import checked

# Items a shard: what a kill can cost, against files in a folder.
SMALL_SHARD, LARGE_SHARD, MANY_ITEMS = 512, 4096, 1 << 20
_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class ExtractReport:
    """What was done.

    Attributes:
        asked_images: number of images the teacher was shown; 0 when all were stored.
        asked_texts: number of captions it was shown.
        skipped: names of the bad images that were left out.
        store: the store, which now holds all other items.
        left_out: these by reason, and what the reader of the data passed over.
    """

    asked_images: int
    asked_texts: int
    skipped: list[str]
    store: FeatureStore
    left_out: LeftOut = field(default_factory=LeftOut)

    def without_skipped(self, dataset: PairDataset) -> PairDataset:
        """`dataset` less the records whose image was skipped."""
        if not self.skipped:
            return dataset
        bad = set(self.skipped)
        return dataset.only([record for record in dataset if record.image.name not in bad])


def extract_features(
    teacher: Teacher,
    dataset: Items,
    store_path: str | Path,
    *,
    skip_bad: bool = False,
    shard_size: int | None = None,
    views: Views | None = None,
    source: str = "",
) -> ExtractReport:
    """Fill the store at `store_path` with the teacher's features of all images and captions of `dataset`.

    Each distinct image (by content) and each distinct caption is asked once. In order of first appearance they are
    cut into blocks of `shard_size`; a block becomes one shard. Several processes, on one machine or on several with a
    common disk, may do this at once: each block is done by one of them. What is stored is never asked again; however
    many processes worked and were killed, the same bytes are there in the end. Hard negatives are not asked: they are
    for scoring only.

    One block of captions comes before the images, so that a teacher whose text side is at fault is not asked about
    all images first.

    Args:
        teacher: whom to ask. A `PiecewiseTeacher` (one behind an API) is also never asked again for what it answered
            before it failed.
        dataset: the items, paired or not.
        store_path: the store's folder, created if need be.
        skip_bad: leave out images that cannot be read or decoded, or that the teacher refuses, instead of raising.
        shard_size: items a block, the same for all processes; 512, and 4,096 of more than a million, if not given.
        views: which views of each image to ask about, besides the whole one; a view counts as an image.
        source: what the store's `left-out.json` calls the data; their name, if not given.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: a store of another teacher, a teacher that returns something unfit, or a full disk.
    """
    teacher = checked(teacher)
    work = Work.of(dataset, skip_bad=skip_bad, shard_size=shard_size, views=views)
    store = FeatureStore.create(store_path, Manifest.of_teacher(teacher))
    if views is not None:
        store.add_views(views)
    if isinstance(teacher, PiecewiseTeacher):
        _logger.info("%s", estimate(teacher, store, work.images, work.captions))
    asked_images = asked_texts = 0
    bad: dict[bytes, str] = {}
    if lacking := len(store.missing("image", list(work.images))):
        sources = {key: found[0] for key, found in work.images.items()}
        with (
            caption_trial(teacher, store, work.caption_blocks, work.captions) as trial,
            progress("teacher: images", lacking) as ticker,
        ):
            filled = fill_images(
                teacher, store, work.image_blocks, sources, ticker, skip_bad=skip_bad, answered=trial.go_on
            )
        asked_images, asked_texts, bad = filled.asked, trial.asked, filled.bad
    if lacking := len(store.missing("text", list(work.captions))):
        with progress("teacher: captions", lacking) as ticker:
            tried = asked_texts > 0
            filled = fill_captions(teacher, store, work.caption_blocks, work.captions, ticker, tried=tried)
        asked_texts += filled.asked
    report = report_of(store, dataset, work.names_of(bad), asked_images, asked_texts)
    note_left_out(store.path, source or dataset.name, report.left_out)
    return report


def report_of(
    store: FeatureStore, dataset: Items, bad: Mapping[str, str], asked_images: int = 0, asked_texts: int = 0
) -> ExtractReport:
    """The report on `dataset`, of which the images `bad` (name -> reason) were left out."""
    skipped = [name for name in dict.fromkeys(image.name for _, image in images_of(dataset)) if name in bad]
    left_out = LeftOut()
    for name in skipped:
        left_out.add(bad[name], name)
    return ExtractReport(asked_images, asked_texts, skipped, store, dataset.left_out | left_out)


@dataclass(frozen=True)
class Work:
    """The distinct items of a dataset, in the blocks that every engine cuts.

    Attributes:
        images: key -> all places the image is found in.
        captions: key -> caption.
        image_blocks, caption_blocks: all of them, stored or not.
        unreadable: name -> reason of images that cannot be read.
    """

    images: dict[bytes, list[ImageSource]]
    captions: dict[bytes, str]
    image_blocks: list[Block]
    caption_blocks: list[Block]
    unreadable: dict[str, str]

    @classmethod
    def of(cls, dataset: Items, *, skip_bad: bool, shard_size: int | None, views: Views | None = None) -> Work:
        """All of `dataset`, with `views` of its images; reads every image once. Raises as `unique_images`."""
        images, unreadable = unique_images(dataset, skip_bad=skip_bad)
        if views is not None:
            images = with_views(images, views)
        captions = unique_captions(dataset)
        return cls(
            images,
            captions,
            cut_blocks("image", list(images), shard_size or _default_size(len(images))),
            cut_blocks("text", list(captions), shard_size or _default_size(len(captions))),
            unreadable,
        )

    @property
    def blocks(self) -> list[Block]:
        """Those of images and then those of captions."""
        return self.image_blocks + self.caption_blocks

    def names_of(self, bad: Mapping[bytes, str]) -> dict[str, str]:
        """Name -> reason of all images that were left out: those with the keys of `bad`, and the unreadable ones."""
        return self.unreadable | {source.name: reason for key, reason in bad.items() for source in self.images[key]}


def _default_size(items: int) -> int:
    return SMALL_SHARD if items <= MANY_ITEMS else LARGE_SHARD


def estimate(
    teacher: PiecewiseTeacher,
    store: FeatureStore | None,
    images: Mapping[bytes, list[ImageSource]],
    captions: Mapping[bytes, str],
) -> str:
    """What asking for all that `store` lacks (all, when there is no store yet) will take: one line."""
    keys = list(captions)
    if store is None:
        return teacher.estimate(len(images), list(captions.values()))
    texts = [captions[keys[i]] for i in store.missing("text", keys)]
    return teacher.estimate(len(store.missing("image", list(images))), texts)
