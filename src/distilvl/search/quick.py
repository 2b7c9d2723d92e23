"""What a query needs of a small index, in one file beside its table: read in milliseconds, LanceDB takes a second.

The file is a copy of the table as of one of its versions. A search without filters reads it where it is that of the
version in place, and the table otherwise; so it may be missing, old or damaged at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from distilvl.io.files import write_atomically
from distilvl.search.table import EXACT_ROWS, Embeddings, Hit, PhotoTable

QUICK_NAME = "quick.npz"
_COLUMNS = ("id", "path", "date", "taken", "width", "height")
_INVERTED = 1 << 63  # file names above it count down from 2^64 - 1


class QuickTable:
    """The rows of a `PhotoTable` at one version, in memory: `vectors` (n, D), L2-normalised, and their files."""

    def __init__(self, folder: Path, version: int, vectors: Embeddings, rows: list[list[Any]]) -> None:
        self._folder, self._version, self._vectors, self._rows = folder, version, vectors, rows

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def read(cls, folder: Path) -> QuickTable | None:
        """That of the table in `folder` as it is now; none where there is none."""
        version = version_of(folder)
        try:
            with np.load(folder / QUICK_NAME, allow_pickle=False) as file:
                if version is None or int(file["version"]) != version:  # a member is read when it is asked for
                    return None
                vectors, told = file["vectors"], file["rows"].tobytes()
                if file["sum"].tobytes() != _sum(version, vectors, told):
                    return None
            return cls(folder, version, vectors, json.loads(told))
        except Exception:  # whatever a damaged archive raises; the table has it all
            return None

    def is_of(self, folder: Path) -> bool:
        """Whether it is that of the table in `folder` as it is now."""
        return folder == self._folder and self._version == version_of(folder)

    def nearest(self, vector: Embeddings, conditions: Sequence[str], top: int) -> list[Hit]:
        """As of a `PhotoTable`, but without conditions: `LookupError` for any."""
        if conditions:
            raise LookupError("the quick copy of a table cannot filter")
        scores = self._vectors @ vector
        found = np.argpartition(-scores, top - 1)[:top] if top < len(scores) else np.arange(len(scores))
        hits = [self._hit(row, float(scores[row])) for row in found.tolist()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))

    def paths(self, _keys: Sequence[str], _conditions: Sequence[str]) -> dict[str, list[str]]:
        """As of a `PhotoTable`; never asked for, since what asks has filtered before."""
        raise LookupError("the quick copy of a table cannot filter")

    def _hit(self, row: int, score: float) -> Hit:
        key, path, date, taken, width, height = self._rows[row]
        times = datetime.fromisoformat(date), None if taken is None else datetime.fromisoformat(taken)
        return Hit(key, path, score, *times, width, height, paths=(path,))


def version_of(folder: Path) -> int | None:
    """The version of the table in `folder`, by the names of its manifests; none where it has none."""
    numbers = [int(path.stem) for path in folder.glob("*.lance/_versions/*.manifest") if path.stem.isdigit()]
    return max((2 * _INVERTED - 1 - number if number >= _INVERTED else number for number in numbers), default=None)


def write_quick(table: PhotoTable) -> None:
    """Write the copy of a table where it is not there; that of one that is no longer small is removed."""
    file, version = table.folder / QUICK_NAME, version_of(table.folder)
    if version is None or len(table) > EXACT_ROWS:
        file.unlink(missing_ok=True)
    elif QuickTable.read(table.folder) is None:
        rows, vectors = table.all_rows(_COLUMNS)
        told = json.dumps([list(row.values()) for row in rows], default=datetime.isoformat).encode()
        stream, seal = io.BytesIO(), _sum(version, vectors, told)
        told_sum = {"rows": np.frombuffer(told, np.uint8), "sum": np.frombuffer(seal, np.uint8)}
        np.savez(stream, allow_pickle=False, version=np.uint64(version), vectors=vectors, **told_sum)
        write_atomically(file, stream.getvalue())


def _sum(version: int, vectors: Embeddings, told: bytes) -> bytes:
    digest = hashlib.sha256(f"{version} {vectors.dtype} {vectors.shape} ".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    digest.update(told)
    return digest.digest()
