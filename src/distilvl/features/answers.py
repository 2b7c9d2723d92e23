"""Answers that are paid for, kept from the moment they arrive until their block is a shard.

Only for teachers that answer piece by piece (`PiecewiseTeacher`): what arrived before a failure or a kill is not
asked again. Rows are kept as they came, in float32, so that the shard has the same bytes as without the interruption.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.features.atomic import write_atomically
from distilvl.features.keys import KEY_BYTES, pack_keys
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore

ANSWER_PREFIX = ".answer-"
Rows = npt.NDArray[np.float32]


class Answers:
    """The answers of one modality that are not in a shard yet.

    Args:
        store: where they belong; the files lie in its folder.
        modality: `image` or `text`.
    """

    def __init__(self, store: FeatureStore, modality: Modality) -> None:
        self._store, self._modality = store, modality

    def keep(self, keys: Sequence[bytes], rows: Rows) -> None:
        """Write `rows`, shape (n, D), to disk; any number of threads may do so at once."""
        table = np.empty(len(keys), dtype=self._row_type())
        table["key"], table["feature"] = pack_keys(keys).view(f"V{KEY_BYTES}"), rows
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        data = buffer.getvalue()
        name = f"{ANSWER_PREFIX}{self._modality}-{hashlib.sha256(data).hexdigest()[:16]}.npy"
        write_atomically(self._store.path / name, data)

    def load(self) -> dict[bytes, Rows]:
        """All that is kept: key -> row, shape (D,). A file that is damaged counts as not there: its items are asked."""
        found: dict[bytes, Rows] = {}
        for path in self._files():
            for key, row in self._table(path):
                found.setdefault(bytes(key), row)
        return found

    def drop_stored(self) -> None:
        """Remove the files whose items are all in shards now."""
        for path in self._files():
            keys = [bytes(key) for key, _ in self._table(path)]
            if not self._store.missing(self._modality, keys):
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._store.path.glob(f"{ANSWER_PREFIX}{self._modality}-*.npy"))

    def _table(self, path: Path) -> list[tuple[Any, Rows]]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # Another writer has just put its rows into a shard.
            return []
        if hashlib.sha256(data).hexdigest()[:16] != path.stem.rsplit("-", 1)[-1]:
            return []
        table = np.load(io.BytesIO(data), allow_pickle=False)
        if table.dtype != self._row_type():
            return []
        return [(row["key"].tobytes(), row["feature"]) for row in table]

    def _row_type(self) -> np.dtype[np.void]:
        return np.dtype([("key", f"V{KEY_BYTES}"), ("feature", "<f4", (self._store.manifest.dim,))])
