"""What a query needs of a small index, in one file beside its table: read in milliseconds, LanceDB takes a second.

The file is a copy of the table as of one of its versions. A search without filters reads it where it is that of the
version in place, and the table otherwise; so it may be missing, old or damaged at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from distilvl.errors import DistilvlError, UnavailableError, one_line
from distilvl.io.files import write_atomically
from distilvl.search.table import EXACT_ROWS, Embeddings, Hit, PhotoTable, scores_of

logger = logging.getLogger("distilvl")

QUICK_NAME = "quick.npz"
_COLUMNS = ("id", "path", "date", "taken", "width", "height")
_INVERTED = 1 << 63  # file names above it count down from 2^64 - 1


class QuickTable:
    """The rows of a `PhotoTable` at one version, in memory: `vectors` (n, D), L2-normalised, and their files."""

    def __init__(self, folder: Path, version: bytes, vectors: Embeddings, rows: list[list[Any]]) -> None:
        self._folder, self._version, self._vectors, self._rows = folder, version, vectors, rows

    def __len__(self) -> int:
        return len(self._rows)

    @classmethod
    def read(cls, folder: Path) -> QuickTable | None:
        """That of the table in `folder` as it is now; none where there is none."""
        version = version_of(folder)
        try:
            with (folder / QUICK_NAME).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if version is None or file["version"].tobytes() != version:  # a member is read when it is asked for
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
        hits = [self._hit(*one) for one in zip(found.tolist(), scores_of(self._vectors[found], vector), strict=True)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))

    def paths(self, _keys: Sequence[str], _conditions: Sequence[str]) -> dict[str, list[str]]:
        """As of a `PhotoTable`; never asked for, since what asks has filtered before."""
        raise LookupError("the quick copy of a table cannot filter")

    def _hit(self, row: int, score: float) -> Hit:
        key, path, date, taken, width, height = self._rows[row]
        times = datetime.fromisoformat(date), None if taken is None else datetime.fromisoformat(taken)
        return Hit(key, path, score, *times, width, height, paths=(path,))


def version_of(folder: Path) -> bytes | None:
    """What tells apart all states that the table in `folder` ever has; none where it has none.

    A hash of its newest manifest, which names the files of its rows: numbers alone begin again in a table that is made
    anew, or that was put back from a copy and went another way.
    """
    found = {path: int(path.stem) for path in folder.glob("*.lance/_versions/*.manifest") if path.stem.isdigit()}
    numbers = {path: 2 * _INVERTED - 1 - name if name >= _INVERTED else name for path, name in found.items()}
    try:
        newest = max(numbers, key=numbers.__getitem__)
        return hashlib.sha256(newest.name.encode() + newest.read_bytes()).digest()
    except (ValueError, OSError):  # there is none, or it has just been taken away
        return None


def write_quick(table: PhotoTable) -> None:
    """Write the copy of a table where it is not there; that of one that is no longer small is removed.

    Where the disk takes none, as with a folder that may not be written to, a warning says so: searches read the table.
    """
    try:
        _write(table)
    except (DistilvlError, OSError) as error:
        if isinstance(error, UnavailableError):  # the table cannot be read
            raise
        logger.warning("searches of %s will be slower: %s", table.index, one_line(error, 300))


def _write(table: PhotoTable) -> None:
    file, version = table.folder / QUICK_NAME, version_of(table.folder)
    if version is None or len(table) > EXACT_ROWS:
        file.unlink(missing_ok=True)
    elif QuickTable.read(table.folder) is None:
        rows, vectors = table.all_rows(_COLUMNS)
        told = json.dumps([list(row.values()) for row in rows], default=datetime.isoformat).encode()
        stream, seal = io.BytesIO(), _sum(version, vectors, told)
        parts = {"version": version, "rows": told, "sum": seal}
        np.savez(
            stream, allow_pickle=False, vectors=vectors, **{k: np.frombuffer(v, np.uint8) for k, v in parts.items()}
        )
        write_atomically(file, stream.getvalue())


def _sum(version: bytes, vectors: Embeddings, told: bytes) -> bytes:
    digest = hashlib.sha256(version + f"{vectors.dtype} {vectors.shape} ".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    digest.update(told)
    return digest.digest()
