"""A split made ready for training: its pixels, token ids and teacher features, each read or computed once."""

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
import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import LeftOut
from distilvl.data.pixels import PixelCache, Resize, cached_pixels, decode_pixels
from distilvl.data.records import PairDataset, UnpairedDataset
from distilvl.evaluation.ground_truth import Groups, right_copies
from distilvl.features import FeatureStore
from distilvl.io.hashes import numbered
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.token_rows import TokenOutputs, TokenRows
from distilvl.training.inputs import Inputs
from distilvl.training.student import (
    Embeddings,
    encode_images_of,
    encode_texts_of,
    store_of,
    store_texts_of,
    tokens_hash,
    tower_identity,
)
from distilvl.training.teacher_features import TeacherFeatures, lookup_teacher

logger = logging.getLogger("distilvl")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Materials:
    """What one split needs; n images that could be decoded, paired or not, and m captions."""

    dataset: Items
    # (n * K, 3, H, W) uint8, or what `store_of` keeps; row i * K + v is crop v of image i, crop 0 the whole one
    pixels: npt.NDArray[Any]
    tokens: TokenRows  # of each of the m captions
    # (n * K, width), what a frozen image tower gives its head; with mirror images beside them (n * K, 2, width)
    pooled_images: Embeddings | None
    pooled_texts: Embeddings | None  # (m, width), the same of a frozen text tower
    caption_image: npt.NDArray[np.int64]  # (m,) row of each caption's image; of unpaired texts, numbers of their own
    teacher: TeacherFeatures | None  # of the same items, when known
    left_out: LeftOut  # images that could not be decoded; `dataset.left_out` is what its reader left out
    crops: int = 1  # K, 1 where there are only whole images
    keys: Sequence[bytes] = ()  # content hash of each of the n images
    stored_texts: TokenOutputs | None = None  # of a text tower that is cut, where it learns from these m captions

    @property
    def count(self) -> int:
        """n."""
        return len(self.pixels) // self.crops

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

    @property
    def images(self) -> npt.NDArray[Any]:
        """What the student is given of each image: pixels, or a frozen tower's outputs."""
        return self.pixels if self.pooled_images is None else self.pooled_images

    def image_rows(self, rows: Rows, mirrored: npt.NDArray[np.bool_] | None) -> Tensor:
        """`images` in these rows, those that are `mirrored` as their mirror images."""
        if mirrored is None:
            return torch.from_numpy(self.images[rows])
        if self.images.dtype != np.uint8:
            return torch.from_numpy(self.images[rows, mirrored.astype(np.int64)])
        found = torch.from_numpy(self.images[rows])
        found[mirrored] = found[mirrored].flip(3)
        return found

    def turned(self, basis: Tensor) -> Materials:
        """As `TeacherFeatures.turned`."""
        return self if self.teacher is None else replace(self, teacher=self.teacher.turned(basis))

    def fingerprint(self) -> str:
        """A hash of what a batch is drawn from: images' shape, owners of captions, token ids."""
        tokens = tokens_hash(self.tokens).encode()
        return hashlib.sha256(str(self.images.shape).encode() + self.caption_image.tobytes() + tokens).hexdigest()


class SharedInputs(Inputs):
    """Datasets, pixels and teacher features for all runs of one process: each is read once, however many runs use it.

    With `pixel_cache`, a folder, decoded images are kept there for later processes, and pixels and teacher features are
    mapped from files there; without it each process decodes anew, and both are in memory.
    """

    def __init__(self, skip_bad: bool = False, pixel_cache: str | Path | None = None) -> None:
        super().__init__(skip_bad)
        self.pixel_cache = None if pixel_cache is None else Path(pixel_cache)
        self._pixels: dict[tuple[Any, ...], PixelCache] = {}
        self._features: dict[tuple[Any, ...], TeacherFeatures] = {}
        self._pooled: dict[tuple[Any, ...], Embeddings] = {}
        self._stored_texts: dict[tuple[Any, ...], TokenOutputs] = {}

    def materials(
        self,
        source: str,
        split: str,
        encoder: DualEncoder,
        store: FeatureStore | None,
        fabric: Fabric,
        crops: Crops | None = None,
        reduced_jpeg: bool = False,
        scored: bool = False,
        mirror: bool = False,
        whole_features: bool = False,
        scratch: Path | None = None,
    ) -> Materials:
        """That split, made ready for `encoder`; frozen towers encode it here, on `fabric`'s device, and never again.

        With `crops`, these of each image beside the whole one, which if `whole_features` have its features; with
        `reduced_jpeg`, large JPEGs are decoded at a reduced scale, at least twice the student's size. Frozen towers,
        and frozen layers of the image tower, compute in full precision on a `scored` split; with `mirror` they also
        encode each image's mirror image. In `scratch`, a folder, lies what is large where there is no `pixel_cache`.
        `BadImageError` for an undecodable image, unless `skip_bad`; `DistilvlError`
        for an item without features.
        """
        at_least = 2 * max(encoder.image_size) if reduced_jpeg else None
        precision = "full" if scored else type(fabric.strategy.precision).__name__
        kept, cut = encoder.preprocessing, encoder.cut
        resize: Resize = encoder.resize
        if encoder.stores_images:
            shape = "x" if cut is None else f"{cut.shape} {cut.known}"
            kept += f"{tower_identity(encoder, 'image', stored=True)} {shape} {mirror} {precision}"
            resize = store_of(encoder, fabric, mirror=mirror, full=scored)
        key = (source, split, kept, crops, at_least)
        if key not in self._pixels:
            items = self.split(source, split)
            how: dict[str, Any] = {"skip_bad": self.skip_bad, "crops": crops, "at_least": at_least}
            if self.pixel_cache is None:
                self._pixels[key] = decode_pixels(items, resize, scratch=scratch, **how)
            else:
                self._pixels[key] = cached_pixels(items, resize, kept, self.pixel_cache, **how)
        cache = self._pixels[key]
        data, teacher = cache.dataset, None
        if store is not None:
            how = {
                "normalized": encoder.normalized,
                "crops": crops,
                "whole": whole_features,
                "folder": self.pixel_cache,
            }
            of = (source, split, str(store.path), *how.values())
            if of not in self._features:
                self._features[of] = lookup_teacher(store, data, cache.keys, **how)
            teacher = self._features[of]
        tokens = encoder.tokenize_all(data.captions)
        owners = data.caption_image if isinstance(data, PairDataset) else range(len(data.texts))
        of_images = (source, split, crops, at_least, precision, encoder.preprocessing, mirror)
        of_texts = (source, split, precision, tokens_hash(tokens))

        def encode_images() -> Embeddings:
            if cut is None:
                return np.asarray(cache.pixels, dtype=np.float32)
            views = [cache.pixels[:, view] for view in (0, 1)] if mirror else [cache.pixels]
            found = [encode_images_of(fabric, cut.above, view, full=scored) for view in views]
            return np.stack(found, axis=1) if mirror else found[0]

        encode_texts = partial(encode_texts_of, fabric, encoder, encoder.pool_texts, tokens, full=scored)
        return Materials(
            dataset=data,
            pixels=cache.pixels,
            tokens=tokens,
            pooled_images=self._pool(of_images, encoder, "image", encode_images),
            pooled_texts=self._pool(of_texts, encoder, "text", encode_texts),
            stored_texts=None
            if scored or encoder.text_cut is None
            else self._store_texts(of_texts, encoder, tokens, fabric),
            caption_image=np.array(owners, dtype=np.int64),
            teacher=teacher,
            left_out=cache.left_out,
            crops=1 if crops is None else crops.count,
            keys=cache.keys,
        )

    def _store_texts(
        self, of: tuple[Any, ...], encoder: DualEncoder, tokens: TokenRows, fabric: Fabric
    ) -> TokenOutputs:
        """Outputs of the text tower's lower layers; kept for other runs that begin with the same tower."""
        assert encoder.text_cut is not None
        key = (*of, encoder.text_cut.name, tower_identity(encoder, "text"))
        if key not in self._stored_texts:
            self._stored_texts[key] = store_texts_of(fabric, encoder, tokens, self.pixel_cache)
        return self._stored_texts[key]

    def _pool(
        self, of: tuple[Any, ...], encoder: DualEncoder, modality: str, encode: Callable[[], Embeddings]
    ) -> Embeddings | None:
        """`encode()` for a frozen tower, kept for other runs with the same tower; nothing for one that learns."""
        if modality not in encoder.frozen:
            return None
        key = (*of, modality, tower_identity(encoder, modality))
        if key not in self._pooled:
            logger.info("encoding %s/%s with the frozen %s tower", of[0], of[1], modality)
            self._pooled[key] = encode()
        return self._pooled[key]
