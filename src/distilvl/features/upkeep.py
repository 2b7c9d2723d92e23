"""Looking after stores: `merge_stores` puts several of one teacher together, `store_info` says what one holds."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut, note_left_out, read_left_out
from distilvl.errors import DistilvlError
from distilvl.features.ensemble import is_ensemble
from distilvl.features.manifest import Manifest
from distilvl.features.shards import KeyIndex, Modality, checksum, row_type, write_table
from distilvl.features.store import FeatureStore
from distilvl.io.files import PARTIAL_PREFIX
from distilvl.io.hashes import pack_keys, unpack_keys
from distilvl.io.leases import LEASE_PREFIX
from distilvl.io.progress import Ticker, progress

PENDING_PREFIX = ".answer-"
SHARD_ROWS = 4096
Embeddings = npt.NDArray[np.float32]


class Pending:
    """The embeddings of one modality that are not in a shard of `store` yet; the files lie in its folder."""

    def __init__(self, store: FeatureStore, modality: Modality) -> None:
        self._store, self._modality = store, modality

    def keep(self, keys: Sequence[bytes], embeddings: Embeddings) -> None:
        """Write `embeddings`, shape (n, D), to disk; any number of threads may do so at once."""
        write_table(self._store.path, f"{PENDING_PREFIX}{self._modality}", pack_keys(keys), embeddings, "<f4")

    def load(self) -> dict[bytes, Embeddings]:
        """All that is stored: key -> embedding, shape (D,). A damaged file counts as missing: its items come again."""
        found: dict[bytes, Embeddings] = {}
        for path in self._files():
            for key, embedding in self._table(path):
                found.setdefault(key, embedding)
        return found

    def drop_stored(self) -> None:
        """Remove the files whose items are all in shards now."""
        for path in self._files():
            if not self._store.missing(self._modality, [key for key, _ in self._table(path)]):
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._store.path.glob(f"{PENDING_PREFIX}{self._modality}-*.npy"))

    def _table(self, path: Path) -> list[tuple[bytes, Embeddings]]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # another writer has just put its embeddings into a shard
            return []
        if checksum(data) != path.stem.rsplit("-", 1)[-1]:
            return []
        table = np.load(io.BytesIO(data), allow_pickle=False)
        if table.dtype != row_type(self._store.manifest.dim, "<f4"):
            return []
        return [(row["key"].tobytes(), row["feature"]) for row in table]


def merge_stores(sources: Sequence[str | Path], out: str | Path, *, shard_size: int = SHARD_ROWS) -> FeatureStore:
    """Copy the embeddings of all `sources`, stores of one teacher, bit for bit, into the store `out`, new or not.

    Shards are of `shard_size` items. Of an item that occurs more than once the first embedding counts. Every shard is
    checked against its checksum as it is read. Run again after a kill, it continues. `DistilvlError` for no sources,
    different teachers or ways of drawing crops, a broken shard, `out` among the sources, or a full disk.
    """
    if not sources or any(is_ensemble(source) for source in sources):
        raise DistilvlError("merge takes one or more feature stores.", "Name their folders.")
    stores = [FeatureStore.open(source) for source in sources]
    if any(store.path.resolve() == Path(out).resolve() for store in stores):
        raise DistilvlError(f"{out} is to be merged into itself.", "Choose another --out folder.")
    for store in stores[1:]:
        stores[0].manifest.require_same_teacher(store.manifest, stores[0].path)
    merged = FeatureStore.create(out, stores[0].manifest)
    for store in stores:
        if store.manifest.views is not None:
            merged.add_crops(store.manifest.views)
    with progress("merge", sum(sum(store.counts.values()) for store in stores)) as ticker:
        for modality in ("image", "text"):
            _copy(stores, merged, modality, shard_size, ticker)
    # What any of the stores leaves out is left out of all: what one leaves out and another holds cannot be told.
    for store in stores:
        for source, left_out in read_left_out(store.path).items():
            known = read_left_out(merged.path).get(source, LeftOut())
            note_left_out(merged.path, source, known | left_out)
    return merged


def _copy(
    stores: Sequence[FeatureStore], merged: FeatureStore, modality: Modality, shard_size: int, ticker: Ticker
) -> None:
    seen, dim = KeyIndex(), merged.manifest.dim
    keys: list[bytes] = []
    embeddings: npt.NDArray[np.float16] = np.empty((0, dim), dtype=np.float16)
    for shard in [shard for store in stores for shard in store.shards(modality)]:
        shard_keys = shard.verify(dim)
        known, _ = seen.find(shard_keys)
        seen.add(shard_keys, 0)
        as_bytes = unpack_keys(shard_keys)
        fresh = [row for row in merged.missing(modality, as_bytes) if not known[row]]
        keys += [as_bytes[row] for row in fresh]
        embeddings = np.concatenate([embeddings, shard.open(dim)["feature"][fresh]])
        while len(keys) >= shard_size:
            merged.add_stored(modality, keys[:shard_size], embeddings[:shard_size])
            keys, embeddings = keys[shard_size:], embeddings[shard_size:]
        ticker.advance(len(shard_keys))
    if keys:
        merged.add_stored(modality, keys, embeddings)


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance."""

    path: str  # its folder, or the spec of an ensemble
    manifest: Manifest  # which teacher made it, and what its embeddings are like
    images: int  # number of distinct images, crops included
    texts: int  # number of distinct captions
    shards: int  # number of finished shards
    bytes: int  # size of all its files
    claims: int  # leases: blocks that writers work on now, or were working on when they were killed
    unsettled: int  # files of embeddings that are paid for and whose block is not finished
    left_out: LeftOut  # of the data that was extracted

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; the manifest's entries lie beside the others."""
        values = asdict(self) | {"left_out": self.left_out.as_dict()}
        return {"path": values.pop("path"), **values.pop("manifest"), **values}

    def __str__(self) -> str:
        values = {name: value for name, value in self.as_dict().items() if name != "left_out"}
        lines = [f"{name}: {value}" for name, value in values.items() if value not in ("", None)]
        return "\n".join([*lines, *(f"left out: {line}" for line in self.left_out.lines())])


def store_info(path: str | Path) -> StoreInfo:
    """About the store or ensemble at `path`; `DistilvlError` where `FeatureStore.open` raises it."""
    store = FeatureStore.open(path)
    folders = [member.path for member in store.members] or [store.path]
    files = [entry for folder in folders for entry in folder.iterdir()]
    names = [entry.name for entry in files]
    return StoreInfo(
        path=str(store.path),
        manifest=store.manifest,
        images=store.counts["image"],
        texts=store.counts["text"],
        shards=sum(name.endswith(".npy") and not name.startswith(".") for name in names),
        bytes=sum(_size(entry) for entry in files if not entry.name.startswith(PARTIAL_PREFIX)),
        claims=sum(name.startswith(LEASE_PREFIX) for name in names),
        unsettled=sum(name.startswith(PENDING_PREFIX) for name in names),
        left_out=store.left_out,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # what a writer has just done with
        return 0
