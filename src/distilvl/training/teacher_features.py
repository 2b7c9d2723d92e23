"""The teacher's features of a split, u^v and u^t, read from a store once and looked up by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distilvl.config.training import CropsConfig
from distilvl.data.crops import Crops, Items
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.shards import Modality
from distilvl.io.files import mapped_array
from distilvl.io.hashes import Keys, pack_keys, text_key

_BLOCK = 8192
Halves = npt.NDArray[np.float16]
Names = Sequence[str] | None


@dataclass(frozen=True)
class StoredFeatures:
    """The teacher's features u^v or u^t: `stored` (n, D) float16, perhaps mapped from a file, turned to other axes.

    `basis` is (D, D) orthogonal; each row stands for `each` items in a row. An index gives rows as float32.
    """

    stored: Halves
    basis: Tensor | None = None
    each: int = 1

    def __len__(self) -> int:
        return len(self.stored) * self.each

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        return self.on(torch.device("cpu"), rows)

    def on(self, device: torch.device, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        """These rows on `device`, where they are made float32 and turned: half the bytes travel."""
        if self.each > 1:
            rows = (np.arange(len(self))[rows] if isinstance(rows, slice) else rows) // self.each
        found = torch.from_numpy(self.stored[rows]).to(device).float()
        return found if self.basis is None else (found @ self.basis.to(device)).half().float()

    def all(self) -> Tensor:
        """(n, D) float32 in memory."""
        return self[slice(None)]

    def blocks(self) -> Iterator[Tensor]:
        """All rows in order, some thousands at a time."""
        return (self[slice(start, start + _BLOCK)] for start in range(0, len(self), _BLOCK))


@dataclass(frozen=True)
class TeacherFeatures:
    """The teacher's features of the images and of the texts of a split, captions in the dataset's order."""

    images: StoredFeatures
    texts: StoredFeatures

    def turned(self, basis: Tensor) -> TeacherFeatures:
        """The same features in other axes, `basis` (D, D) orthogonal."""
        return TeacherFeatures(replace(self.images, basis=basis), replace(self.texts, basis=basis))


def crops_of(config: CropsConfig, store: FeatureStore | None) -> Crops | None:
    """How the crops that `config` asks for are drawn; nothing where it asks for none.

    `DistilvlError` where they have features of their own, and the store has none or too few.
    """
    if config.crops == 1:
        return None
    if config.crop_features == "whole":  # of no seed, so that what is stored of them serves all runs
        scale, colour, grey = config.crop_scale, config.crop_colour, config.crop_grey
        return Crops(count=config.crops, scale=scale, flip=True, colour=colour, grey=grey)
    if store is None:
        remedy = "Name a teacher, or a store made with `distilvl features --views`; or set crop_features=whole."
        raise DistilvlError(f"{config.crops} crops are asked for, and there are no features of crops.", remedy)
    return store.require_crops(config.crops)


def read_features(
    store: FeatureStore, modality: Modality, keys: Sequence[bytes] | Keys, normalized: bool, names: Names = None
) -> Halves:
    """u of the items with these n keys, (n, D); if `normalized`, L2-normalised even where the store has lengths."""
    rows = store.images(keys, names) if modality == "image" else store.texts(keys, names)
    if normalized and not store.manifest.normalized:
        rows = F.normalize(torch.from_numpy(rows).float(), dim=1).half().numpy()
    return rows


def lookup_teacher(
    store: FeatureStore,
    dataset: Items,
    image_keys: list[bytes],
    *,
    normalized: bool = True,
    crops: Crops | None = None,
    whole: bool = False,
    folder: Path | None = None,
) -> TeacherFeatures:
    """The stored features of every image and caption of `dataset`, L2-normalised (eq. 1-2) if `normalized`.

    With `crops`, of these of each image, the whole one first; if `whole`, its features stand for all of its crops. They
    lie in a file without a name in `folder`, or in memory.

    `DistilvlError` for an item that the store lacks, features that cannot be read, or a `folder` without space.
    """
    captions, names = dataset.captions, [entry.image.name for entry in dataset]
    each = 1 if crops is None or not whole else crops.count
    if crops is not None and not whole:
        image_keys = crops.keys(image_keys)
        names = [name for name in names for _ in range(crops.count)]
    starts = range(0, len(captions), _BLOCK)
    text_keys = np.concatenate([pack_keys([text_key(one) for one in captions[at : at + _BLOCK]]) for at in starts])

    def lookup(modality: Modality, keys: Keys, names: Sequence[str]) -> StoredFeatures:
        store.require(modality, keys, names)
        parts = [slice(start, start + _BLOCK) for start in range(0, len(keys), _BLOCK)]
        blocks = (read_features(store, modality, keys[part], normalized, names[part]) for part in parts)
        shape = (len(keys), store.manifest.dim)
        half, remedy = np.float16, "Free space or fix the folder's permissions, or leave --pixel-cache away."
        found = np.empty(shape, half) if folder is None else mapped_array(shape, half, folder, remedy)
        for part, block in zip(parts, blocks, strict=True):
            found[part] = block
        return StoredFeatures(found)

    images = replace(lookup("image", pack_keys(image_keys), names), each=each)
    return TeacherFeatures(images, lookup("text", text_keys, captions))
