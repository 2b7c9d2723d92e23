"""The feature store: a teacher's embeddings, looked up by content."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distilvl.data.crops import Crops
from distilvl.data.left_out import LeftOut, all_left_out, read_left_out
from distilvl.errors import DistilvlError
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.features.shards import KeyIndex, Modality, Places, Shard, storable_embeddings
from distilvl.io.files import PARTIAL_PREFIX, make_folder, remove_partials, storage_error
from distilvl.io.hashes import Keys, pack_keys, unpack_keys
from distilvl.io.leases import LEASE_PREFIX, Leases

_MAPPED_SHARDS = 16_384  # that stay mapped, at most; Linux allows about four times as many maps


@dataclass(frozen=True)
class VerifyReport:
    """What `FeatureStore.verify` read."""

    shards: int  # number of shards
    images: int  # number of distinct images
    texts: int  # number of distinct captions
    repeated: int = 0  # embeddings of items that an earlier shard holds too; harmless, the first one counts
    views: int = 0  # number of distinct crops of those images, whole images not counted


class FeatureStore:
    """Embeddings of a teacher's shared space, float16, by key. Open one with `FeatureStore.open` or `.create`.

    A store is a folder: `manifest.json`, and shards of (key, embedding) that are written once and never changed, so
    that any number of processes may read and write at the same time. Keys come from `image_key` and `text_key`.
    """

    _other_kinds: ClassVar[list[tuple[Callable[[str | Path], bool], Callable[[str | Path], FeatureStore]]]] = []
    """Specs that name no folder, and what opens them; `distilvl.features.ensemble` adds its own."""

    members: Sequence[FeatureStore] = ()  # of an ensemble; a store that is a folder itself has none

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._shards: dict[str, list[Shard]] = {"image": [], "text": []}
        self._mapped: OrderedDict[Path, npt.NDArray[np.void]] = OrderedDict()
        self._most_mapped = min(_MAPPED_SHARDS, _open_files() // 8)
        for shard in Shard.list(path):
            self._shards[shard.modality].append(shard)
        self._index = {
            modality: KeyIndex.of_shards([shard.keys(manifest.dim) for shard in shards])
            for modality, shards in self._shards.items()
        }

    def __repr__(self) -> str:
        held = f"images={self.counts['image']}, texts={self.counts['text']}"
        made = f"teacher={self.manifest.teacher!r}, dim={self.manifest.dim}"
        return f"{type(self).__name__}({str(self.path)!r}, {made}, {held})"

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """A finished store, for reading; `mean:A,B` or `concat:A,B` are several, read as one (see `EnsembleStore`).

        `DistilvlError` when `path` is not a store, its manifest is broken, or a shard is.
        """
        for is_named_by, opened in cls._other_kinds:
            if is_named_by(path):
                return opened(path)
        return cls(Path(path), Manifest.load(Path(path)))

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> FeatureStore:
        """A store to write to: a new one, or the one at `path` when the same teacher made it.

        What a killed run left half-written is removed first. Several processes may do this at once. `DistilvlError`
        when the folder holds other things, a store of another teacher, revision or dimension, or cannot be written.
        """
        path = Path(path)
        make_folder(path)
        try:
            remove_partials(path)
            Leases(path).sweep()
            held = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            raise storage_error(path, error) from error
        kept = [name for name in held if not name.startswith((PARTIAL_PREFIX, LEASE_PREFIX))]
        if kept and MANIFEST_NAME not in kept:
            problem = f"{path} is not a feature store: it has no {MANIFEST_NAME} but holds {kept[0]!r}."
            raise DistilvlError(problem, "Choose an empty or new folder for --out.")
        if MANIFEST_NAME not in kept and manifest.create(path):
            return cls(path, manifest)
        store = cls(path, Manifest.load(path))
        store.manifest.require_same_teacher(manifest, path)
        return store

    def refresh(self) -> None:
        """Take in the shards that other writers have finished since this store was opened."""
        known = {shard.path for shards in self._shards.values() for shard in shards}
        for shard in Shard.list(self.path):
            if shard.path not in known:
                self._take_in(shard, shard.keys(self.manifest.dim))

    def add_crops(self, crops: Crops) -> None:
        """Say in the manifest how crops are drawn; `DistilvlError` when the store holds some drawn otherwise."""
        known = self.manifest.views
        joined = crops if known is None else known.joined(crops, f"the store {self.path}")
        if joined != known:
            self.manifest = replace(self.manifest, views=joined)
            self.manifest.save(self.path)

    def require_crops(self, count: int) -> Crops:
        """How its first `count` crops of an image are drawn; `DistilvlError` when it holds fewer."""
        crops = self.manifest.views
        held = 1 if crops is None else crops.count
        if crops is None or held < count:
            problem = f"the store {self.path} holds {held} of {count} crops of an image (`--views`)."
            command = f"distilvl features --teacher ... --data ... --out {self.path} --views {count}"
            raise DistilvlError(problem, f"Extract more: {command}.")
        return replace(crops, count=count)

    @property
    def left_out(self) -> LeftOut:
        """What was left out of the data that was extracted, as the store's `left-out.json` tells."""
        return all_left_out(read_left_out(self.path))

    @property
    def counts(self) -> dict[str, int]:
        """Number of distinct items held, under "image" and "text"; a crop is an item."""
        return {modality: len(index) for modality, index in self._index.items()}

    def images(self, keys: Sequence[bytes] | Keys, names: Sequence[str] | None = None) -> npt.NDArray[np.float16]:
        """Image embeddings in the order of `keys` (from `image_key`): shape (n, D), a copy in memory.

        `DistilvlError` when one of them is not in the store; it calls them by their `names`, or else their hex digits.
        """
        return self._embeddings("image", pack_keys(keys), names)

    def texts(self, keys: Sequence[bytes] | Keys, names: Sequence[str] | None = None) -> npt.NDArray[np.float16]:
        """Text embeddings in the order of `keys` (from `text_key`): shape (n, D). Otherwise as `images`."""
        return self._embeddings("text", pack_keys(keys), names)

    def keys(self, modality: Modality) -> npt.NDArray[np.bytes_]:
        """Keys of all items held, distinct and sorted: shape (n,), dtype `S16`."""
        held = [shard.keys(self.manifest.dim) for shard in self._shards[modality]]
        return np.unique(np.concatenate(held)) if held else pack_keys([])

    def missing(self, modality: Modality, keys: Sequence[bytes]) -> list[int]:
        """Indices of the `keys` that the store does not hold, ascending."""
        known, _ = self._index[modality].find(pack_keys(keys))
        missing: list[int] = np.flatnonzero(~known).tolist()
        return missing

    def require(self, modality: Modality, keys: Sequence[bytes] | Keys, names: Sequence[str] | None = None) -> None:
        """`DistilvlError` that names the first of `keys` that is not held; quiet when all are."""
        self._places(modality, pack_keys(keys), names)

    def add(
        self, modality: Modality, keys: Sequence[bytes], features: npt.NDArray[Any], number: int | None = None
    ) -> None:
        """Store one embedding a key as one new shard, `number`, or the first free one. Keys that are held stay.

        `features` are (n, D), of any float type; they are L2-normalised when the manifest says `normalized`.
        `DistilvlError` for another dimension than the store's, an embedding that is not finite or all zero, or a full
        disk (then nothing of this call is kept).
        """
        embeddings = storable_embeddings(np.asarray(features), len(keys), self.manifest, f"the store {self.path}")
        self.add_stored(modality, keys, embeddings, number)

    def add_stored(
        self, modality: Modality, keys: Sequence[bytes], embeddings: npt.NDArray[np.float16], number: int | None = None
    ) -> None:
        """As `add`, for embeddings that come from another store of the same teacher and are kept bit for bit."""
        packed = pack_keys(keys)
        known, _ = self._index[modality].find(packed)
        _, first = np.unique(packed, return_index=True)
        fresh = np.sort(first[~known[first]])
        if not len(fresh):
            return
        if number is None:
            # The first free one: after a broken shard was deleted the same items get the same file name again.
            taken = {shard.index for shard in self._shards[modality]}
            number = next(number for number in count() if number not in taken)
        self._take_in(Shard.write(self.path, modality, number, packed[fresh], embeddings[fresh]), packed[fresh])

    def shards(self, modality: Modality) -> list[Shard]:
        """The shards of `modality`, as they are known now."""
        return list(self._shards[modality])

    def verify(self) -> VerifyReport:
        """Read every shard again: checksum, type, dimension, finite numbers; `DistilvlError` names a broken one."""
        distinct, rows, crops = {"image": 0, "text": 0}, 0, 0
        for modality, shards in self._shards.items():
            keys = [shard.verify(self.manifest.dim) for shard in shards]
            rows += sum(map(len, keys))
            distinct[modality] = len(np.unique(np.concatenate(keys))) if keys else 0
            if modality == "image" and self.manifest.views is not None:
                crops = self.manifest.views.held(key for shard_keys in keys for key in unpack_keys(shard_keys))
        number, repeated = sum(map(len, self._shards.values())), rows - sum(distinct.values())
        return VerifyReport(number, distinct["image"] - crops, distinct["text"], repeated, crops)

    def _take_in(self, shard: Shard, keys: npt.NDArray[np.bytes_]) -> None:
        shards = self._shards[shard.modality]
        shards.append(shard)
        self._index[shard.modality].add(keys, len(shards) - 1)

    def _places(self, modality: Modality, keys: Keys, names: Sequence[str] | None) -> Places:
        """(shard, row) of every key: shape (n, 2)."""
        known, places = self._index[modality].find(keys)
        if not known.all():
            first = int(np.argmin(known))
            name = names[first] if names is not None else unpack_keys(keys)[first].hex()
            lacking = f"{modality} {name!r} ({int((~known).sum())} of {len(keys)} missing)"
            remedy = f"Run `distilvl features --teacher ... --data ... --out {self.path}` again to add them."
            raise DistilvlError(f"the store {self.path} lacks the {lacking}.", remedy)
        return places

    def _embeddings(self, modality: Modality, keys: Keys, names: Sequence[str] | None) -> npt.NDArray[np.float16]:
        places = self._places(modality, keys, names)
        embeddings = np.empty((len(keys), self.manifest.dim), dtype=np.float16)
        order = np.argsort(places[:, 0], kind="stable")
        numbers, first = np.unique(places[order, 0], return_index=True)
        for number, here in zip(numbers, np.split(order, first)[1:], strict=True):
            embeddings[here] = self._mapped_shard(self._shards[modality][number])["feature"][places[here, 1]]
        return embeddings

    def _mapped_shard(self, shard: Shard) -> npt.NDArray[np.void]:
        """The shard's memory map, from the most recently used ones."""
        if shard.path not in self._mapped:
            self._mapped[shard.path] = shard.open(self.manifest.dim)
            if len(self._mapped) > self._most_mapped:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(shard.path)
        return self._mapped[shard.path]


def _open_files() -> int:
    """How many files this process may have open. Every mapped shard is one."""
    try:
        import resource
    except ImportError:  # Windows
        return 1024
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 8 * _MAPPED_SHARDS if allowed == resource.RLIM_INFINITY else allowed
