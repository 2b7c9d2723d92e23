"""Token ids of all captions of a split, in two arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]


class TokenRows:
    """m rows of token ids, end to end: 4 bytes a token and 8 a row, where lists would take several times that.

    Args:
        parts: the rows in order, some at a time.

    Attributes:
        ids: of all rows, (sum of the lengths,).
        lengths: of each row, (m,).
    """

    def __init__(self, parts: Iterable[Sequence[Sequence[int]]]) -> None:
        none = np.zeros(0, dtype=np.int32)
        flat: list[Ids] = []
        lengths: list[int] = []
        for rows in parts:
            flat.append(np.concatenate([none, *(np.asarray(row, dtype=np.int32) for row in rows)]))
            lengths += map(len, rows)
        self.ids = np.concatenate([none, *flat])
        self.lengths = np.array(lengths, dtype=np.int64)
        self._ends = self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Ids:
        end = self._ends[row]
        return self.ids[end - self.lengths[row] : end]
