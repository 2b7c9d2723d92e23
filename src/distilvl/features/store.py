"""The feature store: a teacher's output features, looked up by content, kept for good."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.features.atomic import make_folder, only_writer, remove_partials, storage_error
from distilvl.features.index import KeyIndex
from distilvl.features.keys import pack_keys
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.features.rows import storable_rows
from distilvl.features.shards import Modality, Shard

# Every mapped shard holds a file descriptor, of which a process has about a thousand.
_MAPPED_SHARDS = 256


@dataclass(frozen=True)
class VerifyReport:
    """What `FeatureStore.verify` read: number of shards, images and texts."""

    shards: int
    images: int
    texts: int


class FeatureStore:
    """Rows of a teacher's shared space, float16, by key. Open one with `FeatureStore.open` or `.create`.

    A store is a folder: `manifest.json`, and shards of (key, row) that are written once and never changed,
    so that any number of processes may read while one writes. Keys come from `image_key` and `text_key`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        shards = Shard.list(path)
        self._shards: dict[str, list[Shard]] = {
            modality: [shard for shard in shards if shard.modality == modality] for modality in ("image", "text")
        }
        self._index = {
            modality: KeyIndex.of_shards([shard.keys(manifest.dim) for shard in found])
            for modality, found in self._shards.items()
        }
        self._mapped: OrderedDict[Path, npt.NDArray[np.void]] = OrderedDict()

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """A finished store, for reading.

        Raises:
            DistilvlError: `path` is not a store, its manifest is broken, or a shard is.
        """
        return cls(Path(path), Manifest.load(Path(path)))

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> FeatureStore:
        """A store to write to: a new one, or the one at `path` when the same teacher made it.

        What a killed run left half-written is removed first.

        Raises:
            DistilvlError: the folder holds other things, a store of another teacher, revision or width, or
                cannot be written.
        """
        path = Path(path)
        make_folder(path)
        try:
            remove_partials(path)
            strangers = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            raise storage_error(path, error) from error
        if MANIFEST_NAME in strangers:
            store = cls.open(path)
            store.manifest.require_same_teacher(manifest, path)
            return store
        if strangers:
            raise DistilvlError(
                f"{path} is not a feature store: it has no {MANIFEST_NAME} but holds {strangers[0]!r}.",
                "Choose an empty or new folder for --out.",
            )
        manifest.save(path)
        return cls(path, manifest)

    @classmethod
    @contextmanager
    def writer(cls, path: str | Path, manifest: Manifest) -> Iterator[FeatureStore]:
        """As `create`, but for one process at a time: a second one waits, then finds the first one's rows."""
        make_folder(Path(path))
        with only_writer(Path(path)):
            yield cls.create(path, manifest)

    @property
    def counts(self) -> dict[str, int]:
        """Number of distinct items held: `{"image": ..., "text": ...}`."""
        return {modality: len(index) for modality, index in self._index.items()}

    def images(self, keys: Sequence[bytes], names: Sequence[str] | None = None) -> npt.NDArray[np.float16]:
        """Image features in the order of `keys`: shape (n, D), a copy in memory.

        Args:
            keys: from `image_key`.
            names: what an error message calls each of them; their hex digits if not given.

        Raises:
            DistilvlError: one of them is not in the store.
        """
        return self._rows("image", keys, names)

    def texts(self, keys: Sequence[bytes], names: Sequence[str] | None = None) -> npt.NDArray[np.float16]:
        """Text features in the order of `keys` (from `text_key`): shape (n, D). Otherwise as `images`."""
        return self._rows("text", keys, names)

    def missing(self, modality: Modality, keys: Sequence[bytes]) -> list[int]:
        """Indices of the `keys` that the store does not hold, ascending."""
        known, _ = self._index[modality].find(pack_keys(keys))
        missing: list[int] = np.flatnonzero(~known).tolist()
        return missing

    def require(self, modality: Modality, keys: Sequence[bytes], names: Sequence[str] | None = None) -> None:
        """`DistilvlError` that names the first of `keys` that is not held; quiet when all are."""
        self._places(modality, keys, names)

    def add(self, modality: Modality, keys: Sequence[bytes], features: npt.NDArray[Any]) -> None:
        """Store one row a key as one new shard. Keys that are held already are left as they are.

        Args:
            modality: `image` or `text`.
            keys: n keys.
            features: shape (n, D), any float type; scaled to unit length when the manifest says `normalized`.

        Raises:
            DistilvlError: another width than the store's, a row that is not finite or all zero, or a full
                disk (then nothing of this call is kept).
        """
        packed = pack_keys(keys)
        rows = storable_rows(np.asarray(features), len(keys), self.manifest, f"the store {self.path}")
        known, _ = self._index[modality].find(packed)
        _, first = np.unique(packed, return_index=True)
        fresh = np.sort(first[~known[first]])
        if not len(fresh):
            return
        shards = self._shards[modality]
        # The first free number: after a broken shard was deleted the same items get the same file name again.
        taken = {shard.index for shard in shards}
        number = next(number for number in count() if number not in taken)
        shards.append(Shard.write(self.path, modality, number, packed[fresh], rows[fresh]))
        self._index[modality].add(packed[fresh], len(shards) - 1)

    def verify(self) -> VerifyReport:
        """Read every shard again: checksum, type, width, finite numbers, no key twice.

        Raises:
            DistilvlError: names the first broken shard and the remedy.
        """
        counts = {"image": 0, "text": 0}
        for modality, shards in self._shards.items():
            seen: set[bytes] = set()
            for shard in shards:
                keys = {bytes(key) for key in shard.verify(self.manifest.dim).view("V16").tolist()}
                if seen & keys:
                    raise DistilvlError(
                        f"shard {shard.path} repeats {len(seen & keys)} items of earlier shards.",
                        "Delete that file and run the same `distilvl features` command again.",
                    )
                seen |= keys
            counts[modality] = len(seen)
        return VerifyReport(sum(map(len, self._shards.values())), counts["image"], counts["text"])

    def _places(self, modality: Modality, keys: Sequence[bytes], names: Sequence[str] | None) -> npt.NDArray[np.int64]:
        """(shard, row) of every key: shape (n, 2)."""
        known, places = self._index[modality].find(pack_keys(keys))
        if not known.all():
            first = int(np.argmin(known))
            name = names[first] if names is not None else keys[first].hex()
            raise DistilvlError(
                f"the store {self.path} lacks the {modality} {name!r} ({int((~known).sum())} of {len(keys)} missing).",
                f"Run `distilvl features --teacher ... --data ... --out {self.path}` again to add them.",
            )
        return places

    def _rows(self, modality: Modality, keys: Sequence[bytes], names: Sequence[str] | None) -> npt.NDArray[np.float16]:
        places = self._places(modality, keys, names)
        rows = np.empty((len(keys), self.manifest.dim), dtype=np.float16)
        for number in np.unique(places[:, 0]):
            here = places[:, 0] == number
            rows[here] = self._mapped_shard(self._shards[modality][number])["feature"][places[here, 1]]
        return rows

    def _mapped_shard(self, shard: Shard) -> npt.NDArray[np.void]:
        """The shard's memory map, from the few most recently used ones."""
        if shard.path not in self._mapped:
            self._mapped[shard.path] = shard.open(self.manifest.dim)
            if len(self._mapped) > _MAPPED_SHARDS:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(shard.path)
        return self._mapped[shard.path]
