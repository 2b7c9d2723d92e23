"""Where a key's row lies: sorted arrays of keys, searched by bisection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.features.keys import Keys

Places = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Run:
    """Sorted distinct keys, shape (n,), and their places, shape (n, 2)."""

    keys: Keys
    places: Places

    @classmethod
    def of(cls, keys: Keys, places: Places) -> _Run:
        unique, first = np.unique(keys, return_index=True)
        return cls(unique, places[first])

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Places]:
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return self.keys[at] == keys, self.places[at]


class KeyIndex:
    """Maps keys to (shard, row). Of a key that is stored twice the first one counts.

    Keys are kept in a few sorted runs, each more than twice as long as the next, so that adding n keys shard by shard
    costs O(n log n) in all, and a search O(log^2 n).
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.keys) for run in self._runs)

    @classmethod
    def of_shards(cls, shards: list[Keys]) -> KeyIndex:
        """Index of several shards' keys at once; row r of `shards[s]` is at place (s, r)."""
        index = cls()
        if sum(map(len, shards)):
            places = [_places_of(shard, len(keys)) for shard, keys in enumerate(shards)]
            index._runs = [_Run.of(np.concatenate(shards), np.concatenate(places))]
        return index

    def add(self, keys: Keys, shard: int) -> None:
        """Take in a new shard's keys, shape (n,); those that are known already stay where they are."""
        known, _ = self.find(keys)
        if known.all():
            return
        run = _Run.of(keys[~known], _places_of(shard, len(keys))[~known])
        while self._runs and len(self._runs[-1].keys) <= 2 * len(run.keys):
            longer = self._runs.pop()
            run = _Run.of(np.concatenate([longer.keys, run.keys]), np.concatenate([longer.places, run.places]))
        self._runs.append(run)

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Places]:
        """Which of `keys` are known, shape (n,), and their places, shape (n, 2); (-1, -1) where unknown."""
        known = np.zeros(len(keys), dtype=np.bool_)
        places = np.full((len(keys), 2), -1, dtype=np.int32)
        for run in self._runs:
            here, at = run.find(keys)
            places[here] = at[here]
            known |= here
        return known, places


def _places_of(shard: int, rows: int) -> Places:
    return np.stack([np.full(rows, shard), np.arange(rows)], axis=1).astype(np.int32)
