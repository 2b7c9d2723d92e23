"""A split made ready for the loop: pixels, tokens and the teacher's features, each prepared once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distilvl.data.pixels import decode_pixels
from distilvl.data.records import PairDataset
from distilvl.features import FeatureStore, text_key
from distilvl.students.dual_encoder import DualEncoder


@dataclass(frozen=True)
class TeacherFeatures:
    """u^v and u^t of a split: unit rows in fp16, as stored.

    Attributes:
        images: (n, D).
        texts: (m, D), captions in the dataset's order.
    """

    images: Tensor
    texts: Tensor


@dataclass(frozen=True)
class Materials:
    """What one split needs; n images, m captions.

    Attributes:
        dataset: the records that could be decoded.
        pixels: (n, 3, H, W) uint8.
        tokens: token ids of each of the m captions.
        caption_image: (m,) row of each caption's image.
        teacher: features of the same items, when known.
        skipped: images left out because they are bad.
    """

    dataset: PairDataset
    pixels: npt.NDArray[np.uint8]
    tokens: list[list[int]]
    caption_image: npt.NDArray[np.int64]
    teacher: TeacherFeatures | None
    skipped: list[str]


def prepare_materials(
    dataset: PairDataset, encoder: DualEncoder, store: FeatureStore | None, *, skip_bad: bool = False
) -> Materials:
    """Decode, tokenize and look up `dataset` once.

    Raises:
        BadImageError: an undecodable image, unless `skip_bad`.
        DistilvlError: an item whose features the store lacks.
    """
    cache = decode_pixels(dataset, encoder.resize, skip_bad=skip_bad)
    captions = cache.dataset.captions
    return Materials(
        dataset=cache.dataset,
        pixels=cache.pixels,
        tokens=encoder.tokenize(captions),
        caption_image=np.asarray(cache.dataset.caption_image, dtype=np.int64),
        teacher=None if store is None else lookup_teacher(store, cache.dataset, cache.keys),
        skipped=cache.skipped,
    )


def lookup_teacher(store: FeatureStore, dataset: PairDataset, image_keys: list[bytes]) -> TeacherFeatures:
    """The stored features of every image and caption of `dataset`, whose image keys are `image_keys`."""
    captions = dataset.captions
    images = store.images(image_keys, names=[record.image.name for record in dataset])
    texts = store.texts([text_key(caption) for caption in captions], names=captions)
    return TeacherFeatures(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(texts)))
