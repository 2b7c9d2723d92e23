"""Where a key's row lies: a sorted array of keys, searched by bisection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distilvl.features.keys import KEY_BYTES

Keys = npt.NDArray[np.bytes_]
Places = npt.NDArray[np.int64]


class KeyIndex:
    """Maps keys to (shard, row). Of a key that is stored twice the first one counts."""

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, dtype=f"S{KEY_BYTES}")
        self._places: Places = np.empty((0, 2), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def of_shards(cls, shards: list[Keys]) -> KeyIndex:
        """Index of several shards' keys at once; row r of `shards[s]` is at place (s, r)."""
        index = cls()
        if shards:
            places = [_places_of(shard, len(keys)) for shard, keys in enumerate(shards)]
            unique, first = np.unique(np.concatenate(shards), return_index=True)
            index._keys, index._places = unique, np.concatenate(places)[first]
        return index

    def add(self, keys: Keys, shard: int) -> None:
        """Put a new shard's keys, none of which is known yet, into the sorted array."""
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, at, keys[order])
        self._places = np.insert(self._places, at, _places_of(shard, len(keys))[order], axis=0)

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Places]:
        """Which of `keys` are known, shape (n,), and their places, shape (n, 2); (-1, -1) where unknown."""
        places = np.full((len(keys), 2), -1, dtype=np.int64)
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.bool_), places
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[at] == keys
        places[known] = self._places[at[known]]
        return known, places


def _places_of(shard: int, rows: int) -> Places:
    return np.stack([np.full(rows, shard), np.arange(rows)], axis=1).astype(np.int64)
