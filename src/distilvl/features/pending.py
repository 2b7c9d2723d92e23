"""Embeddings that are paid for but not in a shard yet: written the moment they arrive, in files of their own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.io.hashes import KEY_BYTES, pack_keys

PENDING_PREFIX = ".answer-"
Embeddings = npt.NDArray[np.float32]


class Pending:
    """The embeddings of one modality that are not in a shard yet.

    Args:
        store: where they belong; the files lie in its folder.
        modality: `image` or `text`.
    """

    def __init__(self, store: FeatureStore, modality: Modality) -> None:
        self._store, self._modality = store, modality

    def keep(self, keys: Sequence[bytes], embeddings: Embeddings) -> None:
        """Write `embeddings`, shape (n, D), to disk; any number of threads may do so at once."""
        table = np.empty(len(keys), dtype=self._row_type())
        table["key"], table["feature"] = pack_keys(keys).view(f"V{KEY_BYTES}"), embeddings
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        data = buffer.getvalue()
        name = f"{PENDING_PREFIX}{self._modality}-{hashlib.sha256(data).hexdigest()[:16]}.npy"
        write_atomically(self._store.path / name, data)

    def load(self) -> dict[bytes, Embeddings]:
        """All that is kept: key -> embedding, shape (D,). A damaged file counts as not there: its items come again."""
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
        except FileNotFoundError:
            # Another writer has just put its embeddings into a shard.
            return []
        if hashlib.sha256(data).hexdigest()[:16] != path.stem.rsplit("-", 1)[-1]:
            return []
        table = np.load(io.BytesIO(data), allow_pickle=False)
        if table.dtype != self._row_type():
            return []
        return [(row["key"].tobytes(), row["feature"]) for row in table]

    def _row_type(self) -> np.dtype[Any]:
        return np.dtype([("key", f"V{KEY_BYTES}"), ("feature", "<f4", (self._store.manifest.dim,))])
