"""Ask a teacher once for every item of a dataset that its store does not hold yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distilvl.data.images import decode_image
from distilvl.data.records import ImageSource, PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.asking import Asker, Row
from distilvl.features.blocks import share_blocks
from distilvl.features.items import Items, images_of, unique_captions, unique_images
from distilvl.features.keys import image_key
from distilvl.features.manifest import Manifest
from distilvl.features.store import FeatureStore
from distilvl.progress import progress
from distilvl.teachers.base import Teacher
from distilvl.teachers.piecewise import PiecewiseTeacher

# What one call of the teacher may hold: enough for any batch, few enough for a lively progress bar, and of
# large pictures no more than 0.75 GB of RGB. Calls never cross a shard, so a resumed run makes the same ones.
IMAGES_A_CALL = 128
PIXELS_A_CALL = 1 << 28
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
    """

    asked_images: int
    asked_texts: int
    skipped: list[str]
    store: FeatureStore

    def without_skipped(self, dataset: PairDataset) -> PairDataset:
        """`dataset` less the records whose image was skipped."""
        if not self.skipped:
            return dataset
        bad = set(self.skipped)
        return PairDataset(dataset.name, tuple(record for record in dataset if record.image.name not in bad))


def extract_features(
    teacher: Teacher,
    dataset: Items,
    store_path: str | Path,
    *,
    skip_bad: bool = False,
    shard_size: int | None = None,
) -> ExtractReport:
    """Fill the store at `store_path` with the teacher's features of all images and captions of `dataset`.

    Each distinct image (by content) and each distinct caption is asked once. In order of first appearance they are
    cut into blocks of `shard_size`; a block becomes one shard. Several processes, on one machine or on several with a
    common disk, may do this at once: each block is done by one of them. What is stored is never asked again; however
    many processes worked and were killed, the same bytes are there in the end. Hard negatives are not asked: they are
    for scoring only.

    Args:
        teacher: whom to ask. A `PiecewiseTeacher` (one behind an API) is also never asked again for what it answered
            before it failed.
        dataset: the items, paired or not.
        store_path: the store's folder, created if need be.
        skip_bad: leave out images that cannot be read or decoded, or that the teacher refuses, instead of raising.
        shard_size: items a block, the same for all processes; 512, and 4,096 of more than a million, if not given.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: a store of another teacher, a teacher that returns something unfit, or a full disk.
    """
    images, skipped = unique_images(dataset, skip_bad=skip_bad)
    captions = unique_captions(dataset)
    store = FeatureStore.create(store_path, Manifest.of_teacher(teacher))
    if isinstance(teacher, PiecewiseTeacher):
        _logger.info("%s", estimate(teacher, store, images, captions))
    extraction = _Extraction(teacher, store, shard_size)
    asked_images = extraction.images(images, skipped, skip_bad=skip_bad)
    asked_texts = extraction.captions(captions)
    in_order = {image.name: None for _, image in images_of(dataset)}
    bad = set(skipped)
    return ExtractReport(asked_images, asked_texts, [name for name in in_order if name in bad], store)


def estimate(
    teacher: PiecewiseTeacher,
    store: FeatureStore | None,
    images: dict[bytes, list[ImageSource]],
    captions: dict[bytes, str],
) -> str:
    """What asking for all that `store` lacks (all, when there is no store yet) will take: one line."""
    keys = list(captions)
    if store is None:
        return teacher.estimate(len(images), list(captions.values()))
    texts = [captions[keys[i]] for i in store.missing("text", keys)]
    return teacher.estimate(len(store.missing("image", list(images))), texts)


class _Extraction:
    """One pass over the items that are missing; keeps no more than a block of them."""

    def __init__(self, teacher: Teacher, store: FeatureStore, shard_size: int | None) -> None:
        self._teacher, self._store, self._shard_size = teacher, store, shard_size

    def _size(self, items: int) -> int:
        return self._shard_size or (SMALL_SHARD if items <= MANY_ITEMS else LARGE_SHARD)

    def images(self, items: dict[bytes, list[ImageSource]], skipped: list[str], *, skip_bad: bool) -> int:
        keys = list(items)
        lacking = len(self._store.missing("image", keys))
        if not lacking:
            return 0
        with progress("teacher: images", lacking) as ticker:
            asker = Asker(self._teacher, self._store, "image", ticker, skip_refused=skip_bad)

            def work(number: int, missing: list[bytes]) -> None:
                block = _ImageBlock(asker, missing)
                for key in missing:
                    try:
                        block.put(key, items[key][0])
                    except BadImageError:
                        if not skip_bad:
                            raise
                        skipped.extend(source.name for source in items[key])
                        ticker.advance()
                block.store_in(self._store, number)

            share_blocks(self._store, "image", keys, self._size(len(keys)), work, ticker)
            asker.settle()
        skipped.extend(source.name for key in asker.refused for source in items[key])
        return asker.asked

    def captions(self, items: dict[bytes, str]) -> int:
        keys = list(items)
        lacking = len(self._store.missing("text", keys))
        if not lacking:
            return 0
        with progress("teacher: captions", lacking) as ticker:
            asker = Asker(self._teacher, self._store, "text", ticker)

            def work(number: int, missing: list[bytes]) -> None:
                rows = asker.kept(missing)
                asked = [key for key in missing if key not in rows]
                texts = [items[key] for key in asked]
                if texts:
                    rows |= asker.ask(asked, texts, texts)
                self._store.add("text", missing, np.stack([rows[key] for key in missing]), number)
                asker.settle()

            share_blocks(self._store, "text", keys, self._size(len(keys)), work, ticker)
            asker.settle()
        return asker.asked


class _ImageBlock:
    """Images that will be one shard; the teacher is asked whenever enough pixels are waiting."""

    def __init__(self, asker: Asker, keys: list[bytes]) -> None:
        self._asker, self._order = asker, keys
        self._rows: dict[bytes, Row] = asker.kept(keys)
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._waiting: list[Image.Image] = []
        self._names: list[str] = []
        self._pixels = 0

    def put(self, key: bytes, source: ImageSource) -> None:
        """Take in the image with `key`; `BadImageError` when it cannot be decoded."""
        if key in self._rows:
            return
        image = _decoded(source, key)
        pixels = image.width * image.height
        if self._waiting and self._pixels + pixels > PIXELS_A_CALL:
            self._ask()
        self._keys.append(key)
        self._names.append(source.name)
        self._waiting.append(image)
        self._pixels += pixels
        if len(self._waiting) == IMAGES_A_CALL:
            self._ask()

    def _ask(self) -> None:
        self._rows |= self._asker.ask(self._keys, self._waiting, self._names)
        self._clear()

    def store_in(self, store: FeatureStore, number: int) -> None:
        """Write the good ones as shard `number`."""
        if self._waiting:
            self._ask()
        good = [key for key in self._order if key in self._rows]
        if good:
            store.add("image", good, np.stack([self._rows[key] for key in good]), number)
        self._asker.settle()


def _decoded(source: ImageSource, key: bytes) -> Image.Image:
    data = source.read()
    if image_key(data) != key:
        raise DistilvlError(
            f"image {source.name} changed while it was being read.",
            "Run the command again when it is at rest.",
        )
    return decode_image(data, source.name)
