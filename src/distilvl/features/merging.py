"""Stores of one teacher put together: what several machines made, or many small shards made few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut, note_left_out, read_left_out
from distilvl.errors import DistilvlError
from distilvl.features.ensemble import is_ensemble
from distilvl.features.shards import KeyIndex, Modality
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import unpack_keys
from distilvl.io.progress import Ticker, progress

SHARD_ROWS = 4096
_Rows = tuple[npt.NDArray[np.bytes_], npt.NDArray[np.float16]]


def merge_stores(sources: Sequence[str | Path], out: str | Path, *, shard_size: int = SHARD_ROWS) -> FeatureStore:
    """Copy the rows of all `sources`, bit for bit, into the store `out`, in shards of `shard_size`.

    Of an item that occurs more than once the first row counts. Every shard is checked against its checksum as it is
    read. Run again after a kill, it continues.

    Args:
        sources: one or more stores of the same teacher and revision.
        out: the store to make, or one of that teacher to add to; none of `sources`.
        shard_size: rows a shard.

    Raises:
        DistilvlError: no sources, different teachers or ways of drawing views, a broken shard, `out` among the
            sources, or a full disk.
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
            merged.add_views(store.manifest.views)
    total = sum(store.counts[modality] for store in stores for modality in ("image", "text"))
    with progress("merge", total) as ticker:
        for modality in ("image", "text"):
            _copy(stores, merged, modality, shard_size, ticker)
    _merge_left_out(stores, merged)
    return merged


def _merge_left_out(stores: Sequence[FeatureStore], merged: FeatureStore) -> None:
    """What any of the stores leaves out is left out of all: what one leaves out and another holds cannot be told."""
    known = read_left_out(merged.path)
    for store in stores:
        for source, left_out in read_left_out(store.path).items():
            known[source] = known.get(source, LeftOut()) | left_out
    for source, left_out in known.items():
        note_left_out(merged.path, source, left_out)


def _copy(
    stores: Sequence[FeatureStore], merged: FeatureStore, modality: Modality, shard_size: int, ticker: Ticker
) -> None:
    seen = KeyIndex()
    keys: list[bytes] = []
    rows: npt.NDArray[np.float16] = np.empty((0, merged.manifest.dim), dtype=np.float16)
    for shard_keys, shard_rows in _shards(stores, modality):
        known, _ = seen.find(shard_keys)
        seen.add(shard_keys, 0)
        as_bytes = unpack_keys(shard_keys)
        fresh = [row for row in merged.missing(modality, as_bytes) if not known[row]]
        keys += [as_bytes[row] for row in fresh]
        rows = np.concatenate([rows, shard_rows[fresh]])
        while len(keys) >= shard_size:
            merged.add_stored(modality, keys[:shard_size], rows[:shard_size])
            keys, rows = keys[shard_size:], rows[shard_size:]
        ticker.advance(len(shard_keys))
    if keys:
        merged.add_stored(modality, keys, rows)


def _shards(stores: Sequence[FeatureStore], modality: Modality) -> Iterator[_Rows]:
    for store in stores:
        for shard in store.shards(modality):
            keys = shard.verify(store.manifest.dim)
            yield keys, np.array(shard.open(store.manifest.dim)["feature"])
