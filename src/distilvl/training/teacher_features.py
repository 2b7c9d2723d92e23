"""The teacher's rows of a split: read from the store once, into memory or, as the pixels, into a mapped file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from distilvl.data.crops import Crops
from distilvl.data.items import Items
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.shards import Modality
from distilvl.io.hashes import Keys, pack_keys, text_key

Rows = npt.NDArray[np.float16]
_BLOCK = 8192


@dataclass(frozen=True)
class TeacherRows:
    """u^v or u^t of some items.

    Attributes:
        stored: as the store gave them, (n, D), perhaps mapped from a file.
        basis: other axes for them, (D, D) orthogonal.
    """

    stored: Rows
    basis: Tensor | None = None

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        """These rows, float32 with the precision of fp16, in which they are stored."""
        return self.on(torch.device("cpu"), rows)

    def on(self, device: torch.device, rows: npt.NDArray[np.int64] | slice) -> Tensor:
        """These rows on `device`, where they are made float32 and turned: half the bytes travel."""
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
    """u^v and u^t of a split, captions in the dataset's order.

    Attributes:
        images: (n, D).
        texts: (m, D).
    """

    images: TeacherRows
    texts: TeacherRows

    def turned(self, basis: Tensor) -> TeacherFeatures:
        """The same rows in other axes, `basis` (D, D) orthogonal."""
        return TeacherFeatures(replace(self.images, basis=basis), replace(self.texts, basis=basis))


def lookup_teacher(
    store: FeatureStore,
    dataset: Items,
    image_keys: list[bytes],
    *,
    normalized: bool = True,
    views: Crops | None = None,
    folder: Path | None = None,
) -> TeacherFeatures:
    """The stored features of every image and caption of `dataset`.

    Args:
        store: holds them.
        dataset: the items.
        image_keys: of its images.
        normalized: make the rows of a store that kept their lengths unit rows (eq. 1-2).
        views: have these of each image, the whole one first.
        folder: where the rows lie while they are in use, in a file without a name; in memory if not given.

    Raises:
        DistilvlError: an item that the store lacks, rows that cannot be read, or no room in `folder`.
    """
    captions = dataset.captions
    names = [entry.image.name for entry in dataset]
    if views is not None:
        image_keys = views.keys(image_keys)
        names = [name for name in names for _ in range(views.count)]
    lookup = partial(_lookup, store, normalized, folder)
    return TeacherFeatures(
        lookup("image", pack_keys(image_keys), names), lookup("text", _text_keys(captions), captions)
    )


def stored_rows(
    store: FeatureStore,
    modality: Modality,
    keys: Sequence[bytes] | Keys,
    normalized: bool,
    names: Sequence[str] | None = None,
) -> Rows:
    """u of the items with these n keys, (n, D), as `lookup_teacher` has it."""
    rows = store.images(keys, names) if modality == "image" else store.texts(keys, names)
    if normalized and not store.manifest.normalized:
        rows = F.normalize(torch.from_numpy(rows).float(), dim=1).half().numpy()
    return rows


def _lookup(
    store: FeatureStore,
    normalized: bool,
    folder: Path | None,
    modality: Modality,
    keys: Keys,
    names: Sequence[str],
) -> TeacherRows:
    store.require(modality, keys, names)
    parts = (slice(start, start + _BLOCK) for start in range(0, len(keys), _BLOCK))
    blocks = (stored_rows(store, modality, keys[part], normalized, names[part]) for part in parts)
    shape = (len(keys), store.manifest.dim)
    return TeacherRows(_in_memory(blocks, shape) if folder is None else _in_file(blocks, shape, folder))


def _in_memory(blocks: Iterable[Rows], shape: tuple[int, int]) -> Rows:
    rows, done = np.empty(shape, dtype=np.float16), 0
    for block in blocks:
        rows[done : done + len(block)] = block
        done += len(block)
    return rows


def _in_file(blocks: Iterable[Rows], shape: tuple[int, int], folder: Path) -> Rows:
    """Mapped from a file in `folder` that has no name, so that it goes with the last process that maps it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
            file.flush()
            # Copy on write, since torch wants tensors of arrays that may be written to; nobody does.
            return np.asarray(np.memmap(file, dtype=np.float16, mode="c", shape=shape))
    except OSError as error:
        raise DistilvlError(
            f"cannot write {np.prod(shape) * 2 / 1e9:.2f} GB of features to {folder}: {error.strerror or error}.",
            "Free space or fix the folder's permissions, or leave --pixel-cache away.",
        ) from error


def _text_keys(captions: Sequence[str]) -> Keys:
    starts = range(0, len(captions), _BLOCK)
    return np.concatenate([pack_keys([text_key(one) for one in captions[at : at + _BLOCK]]) for at in starts])
