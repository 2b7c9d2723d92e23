"""The teacher's rows of a split: found when the run starts, read from the store's mapped files batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distilvl.features import FeatureStore, text_key
from distilvl.features.items import Items
from distilvl.features.keys import Keys, pack_keys
from distilvl.features.shards import Modality
from distilvl.features.views import Views

_BLOCK = 8192


@dataclass(frozen=True)
class StoredRows:
    """u^v or u^t of some items, (n, D), of which only the keys are in memory: 16 bytes a row.

    Attributes:
        store: holds them.
        modality: of the items.
        keys: theirs, (n,).
        normalized: make them unit rows (eq. 1-2) where the store kept their lengths.
        basis: other axes for them, (D, D) orthogonal.
    """

    store: FeatureStore
    modality: Modality
    keys: Keys
    normalized: bool = True
    basis: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        """These rows, float32 with the precision of fp16, in which they are stored."""
        found = torch.from_numpy(self._read(self.keys[rows])).float()
        if self.normalized and not self.store.manifest.normalized:
            found = F.normalize(found, dim=1).half().float()
        return found if self.basis is None else (found @ self.basis).half().float()

    @property
    def _read(self) -> Callable[..., npt.NDArray[np.float16]]:
        return self.store.images if self.modality == "image" else self.store.texts

    def require(self, names: Sequence[str]) -> None:
        """Read all rows and let them go; `DistilvlError` that says which of `names` is lacking or cannot be read."""
        self.store.require(self.modality, self.keys, names)
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._read(self.keys[block], names[block])

    def all(self) -> Tensor:
        """(n, D) float32 in memory."""
        return self[slice(None)]

    def blocks(self) -> Iterator[Tensor]:
        """All rows in order, some thousands at a time."""
        return (self[slice(start, start + _BLOCK)] for start in range(0, len(self), _BLOCK))


@dataclass(frozen=True)
class TeacherFeatures:
    """u^v and u^t of a split, captions in the dataset's order.

    Attributes:
        images: (n, D).
        texts: (m, D).
    """

    images: StoredRows
    texts: StoredRows

    def turned(self, basis: Tensor) -> TeacherFeatures:
        """The same rows in other axes, `basis` (D, D) orthogonal."""
        return TeacherFeatures(replace(self.images, basis=basis), replace(self.texts, basis=basis))


def lookup_teacher(
    store: FeatureStore,
    dataset: Items,
    image_keys: list[bytes],
    *,
    normalized: bool = True,
    views: Views | None = None,
) -> TeacherFeatures:
    """The stored features of every image and caption of `dataset`, whose image keys are `image_keys`.

    All rows are read once here and let go, so that a damaged store is found before the first step.

    Raises:
        DistilvlError: an item that the store lacks, or rows that cannot be read.
    """
    captions = dataset.captions
    names = [entry.image.name for entry in dataset]
    if views is not None:
        image_keys = views.keys(image_keys)
        names = [name for name in names for _ in range(views.count)]
    images = StoredRows(store, "image", pack_keys(image_keys), normalized)
    texts = StoredRows(store, "text", _text_keys(captions), normalized)
    images.require(names)
    texts.require(captions)
    return TeacherFeatures(images, texts)


def _text_keys(captions: Sequence[str]) -> Keys:
    starts = range(0, len(captions), _BLOCK)
    return np.concatenate([pack_keys([text_key(one) for one in captions[at : at + _BLOCK]]) for at in starts])
