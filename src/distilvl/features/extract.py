"""Ask a teacher once for every item of a dataset that its store does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.images import decode_image
from distilvl.data.records import ImageSource, PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.items import unique_captions, unique_images
from distilvl.features.keys import image_key
from distilvl.features.manifest import Manifest
from distilvl.features.rows import storable_rows
from distilvl.features.store import FeatureStore
from distilvl.progress import Ticker, progress
from distilvl.teachers.base import Teacher

# What one call of the teacher may hold: enough for any batch, few enough for a lively progress bar, and of
# large pictures no more than 0.75 GB of RGB. Calls never cross a shard, so a resumed run makes the same ones.
IMAGES_A_CALL = 128
PIXELS_A_CALL = 1 << 28

Item = TypeVar("Item")


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
    dataset: PairDataset,
    store_path: str | Path,
    *,
    skip_bad: bool = False,
    shard_size: int = 512,
) -> ExtractReport:
    """Fill the store at `store_path` with the teacher's features of all images and captions of `dataset`.

    Each distinct image (by content) and each distinct caption is asked once, in order of first appearance,
    and `shard_size` of them become one shard. What is stored is never asked again; a run that was killed and
    started again ends with the same bytes as one that was not. Hard negatives are not asked: they are for
    scoring only.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: a store of another teacher, a teacher that returns something unfit, or a full disk.
    """
    images, skipped = unique_images(dataset, skip_bad=skip_bad)
    captions = unique_captions(dataset)
    with FeatureStore.writer(store_path, Manifest.of_teacher(teacher)) as store:
        extraction = _Extraction(teacher, store, shard_size)
        asked_images = extraction.images(images, skipped, skip_bad=skip_bad)
        asked_texts = extraction.captions(captions)
    in_order = {record.image.name: None for record in dataset}
    bad = set(skipped)
    return ExtractReport(asked_images, asked_texts, [name for name in in_order if name in bad], store)


class _Extraction:
    """One pass over the items that are missing; keeps no more than a block of them."""

    def __init__(self, teacher: Teacher, store: FeatureStore, shard_size: int) -> None:
        self._teacher, self._store, self._shard_size = teacher, store, shard_size

    def images(self, items: dict[bytes, list[ImageSource]], skipped: list[str], *, skip_bad: bool) -> int:
        keys = list(items)
        missing = [keys[i] for i in self._store.missing("image", keys)]
        if not missing:
            return 0
        asked = 0
        with progress("teacher: images", len(missing)) as ticker:
            # Blocks are made of good images only, so a bad one never changes how the others fall into shards
            # when a run is resumed.
            block = _ImageBlock(self._teacher, self._store.manifest, ticker)
            for key in missing:
                try:
                    image = _decoded(items[key][0], key)
                except BadImageError:
                    if not skip_bad:
                        raise
                    skipped.extend(source.name for source in items[key])
                    ticker.advance()
                    continue
                block.put(key, items[key][0].name, image)
                if len(block) == self._shard_size:
                    asked += block.store_in(self._store)
            asked += block.store_in(self._store)
        return asked

    def captions(self, items: dict[bytes, str]) -> int:
        keys = list(items)
        missing = [keys[i] for i in self._store.missing("text", keys)]
        if not missing:
            return 0
        with progress("teacher: captions", len(missing)) as ticker:
            for block in _blocks(missing, self._shard_size):
                texts = [items[key] for key in block]
                rows = _asked(self._teacher, self._teacher.encode_texts, texts, texts, self._store.manifest)
                self._store.add("text", block, rows)
                ticker.advance(len(block))
        return len(missing)


class _ImageBlock:
    """Images that will be one shard; the teacher is asked whenever enough pixels are waiting."""

    def __init__(self, teacher: Teacher, manifest: Manifest, ticker: Ticker) -> None:
        self._teacher, self._manifest, self._ticker = teacher, manifest, ticker
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._rows: list[npt.NDArray[Any]] = []
        self._waiting: list[Image.Image] = []
        self._names: list[str] = []
        self._pixels = 0

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, key: bytes, name: str, image: Image.Image) -> None:
        pixels = image.width * image.height
        if self._waiting and self._pixels + pixels > PIXELS_A_CALL:
            self._ask()
        self._keys.append(key)
        self._names.append(name)
        self._waiting.append(image)
        self._pixels += pixels
        if len(self._waiting) == IMAGES_A_CALL:
            self._ask()

    def _ask(self) -> None:
        encode = self._teacher.encode_images
        self._rows.append(_asked(self._teacher, encode, self._waiting, self._names, self._manifest))
        self._ticker.advance(len(self._waiting))
        self._waiting, self._names, self._pixels = [], [], 0

    def store_in(self, store: FeatureStore) -> int:
        """Write the shard, start anew; returns the number of images in it."""
        if self._waiting:
            self._ask()
        count = len(self._keys)
        if count:
            store.add("image", self._keys, np.concatenate(self._rows))
        self._clear()
        return count


def _decoded(source: ImageSource, key: bytes) -> Image.Image:
    data = source.read()
    if image_key(data) != key:
        raise DistilvlError(
            f"image {source.name} changed while it was being read.",
            "Run the command again when it is at rest.",
        )
    return decode_image(data, source.name)


def _asked(
    teacher: Teacher,
    encode: Callable[[Sequence[Item]], npt.NDArray[Any]],
    items: Sequence[Item],
    names: Sequence[str],
    manifest: Manifest,
) -> npt.NDArray[Any]:
    """The teacher's rows for `items`, as it returned them, checked: shape (n, D)."""
    rows = np.asarray(encode(items))
    storable_rows(rows, len(items), manifest, f"teacher {teacher.name!r}", names)
    return rows


def _blocks(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
