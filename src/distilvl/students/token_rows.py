"""What is kept of many texts: their token ids, or a layer's outputs for each token, end to end in one array."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distilvl.io.files import mapped_array

logger = logging.getLogger("distilvl")
Ids = npt.NDArray[np.int32]


class TokenRows:
    """The token ids of m captions, given some at a time, end to end: lists would take several times the memory."""

    def __init__(self, parts: Iterable[Sequence[Sequence[int]]]) -> None:
        none = np.zeros(0, dtype=np.int32)
        flat: list[Ids] = []
        lengths: list[int] = []
        for rows in parts:
            flat.append(np.concatenate([none, *(np.asarray(row, dtype=np.int32) for row in rows)]))
            lengths += map(len, rows)
        self.ids = np.concatenate([none, *flat])  # (sum of the lengths,)
        self.lengths = np.array(lengths, dtype=np.int64)  # (m,)
        self._ends = self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Ids:
        end = self._ends[row]
        return self.ids[end - self.lengths[row] : end]


class TokenOutputs:
    """A layer's outputs for each token of m texts, (L_i, H) float16 each, in memory or mapped from a file in `folder`.

    The file has no name, so that it goes with the last process that maps it. `DistilvlError` for a folder that does not
    take it.
    """

    def __init__(self, tokens: TokenRows, size: int, folder: Path | None = None) -> None:
        self.lengths = tokens.lengths  # (m,)
        self._ends, shape = tokens.lengths.cumsum(), (int(tokens.lengths.sum()), size)
        logger.info("storing outputs of the text tower's lower layers: %.2f GB", 2 * shape[0] * size / 1e9)
        remedy = "Free space or leave --pixel-cache away."
        self._rows = np.empty(shape, np.float16) if folder is None else mapped_array(shape, np.float16, folder, remedy)

    def __len__(self) -> int:
        return len(self.lengths)

    def _place(self, row: int) -> slice:
        return slice(self._ends[row] - self.lengths[row], self._ends[row])

    def put(self, rows: Sequence[int] | npt.NDArray[Any], outputs: Tensor) -> None:
        """Keep `outputs` (n, L, H) of these n texts, each without its padding."""
        values = outputs.half().cpu().numpy()
        for row, value in zip(rows, values, strict=True):
            self._rows[self._place(row)] = value[: self.lengths[row]]

    def padded(self, rows: Sequence[int] | npt.NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Of these n texts (n, longest, H) float32, zeros behind each, and the mask (n, longest) int64."""
        found = [torch.from_numpy(self._rows[self._place(row)]).float() for row in rows]
        return pad_sequence(found, batch_first=True), mask_of(self.lengths[rows])


def mask_of(lengths: Sequence[int] | npt.NDArray[Any]) -> Tensor:
    """(n, longest) int64: 1 for each token of n texts, 0 behind."""
    ends = torch.as_tensor(np.asarray(lengths))
    return (torch.arange(int(ends.max())) < ends[:, None]).long()
