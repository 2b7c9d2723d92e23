"""Splits made ready for the loop: pixels, tokens and the teacher's features, each prepared once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.data import load_any
from distilvl.data.crops import Views
from distilvl.data.items import Items
from distilvl.data.left_out import LeftOut
from distilvl.data.pixel_cache import cached_pixels
from distilvl.data.pixels import PixelCache, decode_pixels
from distilvl.data.records import PairDataset
from distilvl.data.unpaired import UnpairedDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.ground_truth import Groups, right_copies
from distilvl.features import FeatureStore
from distilvl.io.hashes import numbered
from distilvl.students.dual_encoder import DualEncoder, TokenRows
from distilvl.students.storage import route
from distilvl.training.batch import Rows, over_rows, over_texts
from distilvl.training.teacher_features import TeacherFeatures, lookup_teacher

logger = logging.getLogger("distilvl")

NAME_VAL_DATA = "Name a dataset of pairs with a split val: --val-data."


@dataclass(frozen=True)
class Materials:
    """What one split needs; n images, m captions.

    Attributes:
        dataset: the images that could be decoded, paired or not.
        pixels: (n * K, 3, H, W) uint8; row i * K + v is view v of image i, view 0 the whole one.
        tokens: token ids of each of the m captions.
        pooled_images: (n * K, width), what a frozen image tower gives its head; none for one that learns.
        pooled_texts: (m, width), the same of a frozen text tower.
        caption_image: (m,) row of each caption's image; of unpaired texts, numbers of their own.
        teacher: features of the same items, when known.
        left_out: images that could not be decoded; `dataset.left_out` is what its reader passed over.
        views: K, 1 where there are only whole images.
        keys: content hash of each of the n images.
    """

    dataset: Items
    pixels: npt.NDArray[np.uint8]
    tokens: TokenRows
    pooled_images: Rows | None
    pooled_texts: Rows | None
    caption_image: npt.NDArray[np.int64]
    teacher: TeacherFeatures | None
    left_out: LeftOut
    views: int = 1
    keys: Sequence[bytes] = ()

    @property
    def count(self) -> int:
        """n."""
        return len(self.pixels) // self.views

    @property
    def pictures(self) -> npt.NDArray[np.int64]:
        """For each image the row of the first one with the same bytes, (n,): these are never each other's negatives."""
        numbers = numbered(self.keys or range(self.count))
        return np.unique(numbers, return_index=True)[1][numbers]

    @property
    def text_pictures(self) -> npt.NDArray[np.int64]:
        """The same of each caption's image, (m,); unpaired texts keep their own numbers."""
        unpaired = isinstance(self.dataset, UnpairedDataset)
        return self.caption_image if unpaired else self.pictures[self.caption_image]

    @cached_property
    def copies(self) -> Groups:
        """Which pictures and which captions are equal."""
        return Groups.by_content(self.keys, self.dataset.captions)

    @property
    def groups(self) -> Groups | None:
        """The copies that are right answers in scoring, by the dataset's own ground truth."""
        return right_copies(self.copies, self.dataset.ground_truth) if isinstance(self.dataset, PairDataset) else None

    def turned(self, basis: Tensor) -> Materials:
        """The same with the teacher's rows in other axes, `basis` (D, D) orthogonal."""
        return self if self.teacher is None else replace(self, teacher=self.teacher.turned(basis))

    @property
    def images(self) -> npt.NDArray[Any]:
        """What the student is given of each image: pixels, or a frozen tower's rows."""
        return self.pixels if self.pooled_images is None else self.pooled_images


class SharedInputs:
    """Datasets, pixels and teacher features for all runs of one process: each is read once, however many runs use it.

    Args:
        skip_bad: leave bad images out instead of stopping.
        pixel_cache: a folder that keeps decoded images for later processes; without it they are decoded anew in each,
            and kept in memory, as the teacher's rows are. With it both are mapped from files there.
    """

    def __init__(self, skip_bad: bool = False, pixel_cache: str | Path | None = None) -> None:
        self.skip_bad = skip_bad
        self.pixel_cache = None if pixel_cache is None else Path(pixel_cache)
        self._datasets: dict[str, Items] = {}
        self._splits: dict[tuple[str, str], Items] = {}
        self._pixels: dict[tuple[str, str, str, Views | None, int | None], PixelCache] = {}
        self._teachers: dict[tuple[str, str, str, bool, Views | None], TeacherFeatures] = {}
        self._pooled: dict[tuple[str | int | Views | None, ...], Rows] = {}

    def dataset(self, source: str) -> Items:
        """The dataset that `source` names."""
        if source not in self._datasets:
            self._datasets[source] = load_any(source, skip_bad=self.skip_bad)
        return self._datasets[source]

    def split(self, source: str, name: str) -> Items:
        """One split of it; data without pairs is its own `train`, and has no other.

        Raises:
            DistilvlError: an empty split, or one to be scored on without pairs.
        """
        if (source, name) not in self._splits:
            data = self.dataset(source)
            if isinstance(data, PairDataset):
                self._splits[source, name] = data.split(name)
            elif name == "train":
                self._splits[source, name] = data
            else:
                raise DistilvlError(f"{data.name} has no pairs, so it cannot be scored on.", NAME_VAL_DATA)
        return self._splits[source, name]

    def materials(
        self,
        source: str,
        split: str,
        encoder: DualEncoder,
        store: FeatureStore | None,
        fabric: Fabric,
        views: Views | None = None,
        reduced_jpeg: bool = False,
        scored: bool = False,
    ) -> Materials:
        """That split, made ready for `encoder`; frozen towers are asked here, on `fabric`'s device, and never again.

        Args:
            source: the dataset.
            split: its split.
            encoder: the student.
            store: the teacher's features.
            fabric: where frozen towers are asked.
            views: which views of each image to have, beside the whole one.
            reduced_jpeg: decode large JPEGs at a reduced scale, at least twice the student's size.
            scored: the student is scored on it, so frozen towers, too, compute in full precision.

        Raises:
            BadImageError: an undecodable image, unless `skip_bad`.
            DistilvlError: an empty split, or an item whose features the store lacks.
        """
        at_least = 2 * max(encoder.image_size) if reduced_jpeg else None
        key = (source, split, encoder.preprocessing, views, at_least)
        if key not in self._pixels:
            self._pixels[key] = self._decoded(self.split(source, split), encoder, views, at_least)
        cache = self._pixels[key]
        tokens = encoder.tokenize_all(cache.dataset.captions)
        pool = partial(self._pool, (source, split, views, at_least), encoder, fabric, scored)
        return Materials(
            dataset=cache.dataset,
            pixels=cache.pixels,
            tokens=tokens,
            pooled_images=pool("image", lambda: over_rows(fabric, encoder.pool_images, cache.pixels, full=scored)),
            pooled_texts=pool(
                "text", lambda: over_texts(fabric, encoder, encoder.pool_texts, tokens, full=scored), tokens
            ),
            caption_image=_owners(cache.dataset),
            teacher=None if store is None else self._teacher(source, split, store, cache, encoder.normalized, views),
            left_out=cache.left_out,
            views=1 if views is None else views.count,
            keys=cache.keys,
        )

    def _decoded(self, items: Items, encoder: DualEncoder, views: Views | None, at_least: int | None) -> PixelCache:
        resize, skip_bad = encoder.resize, self.skip_bad
        if self.pixel_cache is None:
            return decode_pixels(items, resize, skip_bad=skip_bad, views=views, at_least=at_least)
        does, folder = encoder.preprocessing, self.pixel_cache
        return cached_pixels(items, resize, does, folder, skip_bad=skip_bad, views=views, at_least=at_least)

    def _pool(
        self,
        of: tuple[str, str, Views | None, int | None],
        encoder: DualEncoder,
        fabric: Fabric,
        scored: bool,
        modality: str,
        rows: Callable[[], Rows],
        tokens: TokenRows | None = None,
    ) -> Rows | None:
        """`rows()` for a frozen tower, kept for other runs with the same tower; nothing for one that learns."""
        if modality not in encoder.frozen:
            return None
        precision = "full" if scored else type(fabric.strategy.precision).__name__
        given = encoder.preprocessing if tokens is None else tokens_hash(tokens)
        key = (*of, modality, precision, given, _architecture(encoder, modality), encoder.tower_fingerprint(modality))
        if key not in self._pooled:
            logger.info("asking the frozen %s tower about %s", modality, f"{of[0]}/{of[1]}")
            self._pooled[key] = rows()
        return self._pooled[key]

    def _teacher(
        self,
        source: str,
        split: str,
        store: FeatureStore,
        cache: PixelCache,
        normalized: bool,
        views: Views | None,
    ) -> TeacherFeatures:
        key = (source, split, str(store.path), normalized, views)
        if key not in self._teachers:
            self._teachers[key] = lookup_teacher(
                store, cache.dataset, cache.keys, normalized=normalized, views=views, folder=self.pixel_cache
            )
        return self._teachers[key]


def tokens_hash(tokens: TokenRows) -> str:
    """Equal for equal rows."""
    digest = hashlib.sha256(tokens.lengths.tobytes())
    digest.update(tokens.ids.data)
    return digest.hexdigest()


def _architecture(encoder: DualEncoder, modality: str) -> str:
    """What a tower computes with its weights, down to the pooling: the same weights may be used in several ways."""
    before_head = route(encoder.student, modality)[:-1]
    return f"{before_head[0].model.config.to_json_string()} {before_head}"


def _owners(dataset: Items) -> npt.NDArray[np.int64]:
    if isinstance(dataset, UnpairedDataset):
        return np.arange(len(dataset.texts))
    return np.repeat(np.arange(len(dataset)), [len(record.captions) for record in dataset])
