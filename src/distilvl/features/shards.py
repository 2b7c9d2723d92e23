"""One shard: a `.npy` file of (key, feature) rows whose name holds its own checksum."""

from __future__ import annotations

import hashlib
import io
import mmap
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.features.atomic import write_atomically
from distilvl.features.keys import KEY_BYTES

Modality = Literal["image", "text"]
_NAME = re.compile(r"(image|text)-(\d{5,})-([0-9a-f]{16})\.npy")


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard's file: `<modality>-<index>-<first 16 hex digits of its SHA-256>.npy`."""

    path: Path
    modality: str
    index: int
    checksum: str

    @classmethod
    def list(cls, folder: Path) -> list[Shard]:
        """All shards of `folder`, in the order in which they were written."""
        found = [
            cls(path, match[1], int(match[2]), match[3])
            for path in folder.iterdir()
            if (match := _NAME.fullmatch(path.name))
        ]
        return sorted(found, key=lambda shard: (shard.modality, shard.index, shard.checksum))

    @classmethod
    def write(
        cls,
        folder: Path,
        modality: str,
        index: int,
        keys: npt.NDArray[np.bytes_],
        rows: npt.NDArray[np.float16],
    ) -> Shard:
        """Store `keys`, shape (n,), and `rows`, shape (n, D), in one atomic step."""
        table = np.empty(len(keys), dtype=_row_type(rows.shape[1]))
        table["key"], table["feature"] = keys.view(f"V{KEY_BYTES}"), rows
        buffer = io.BytesIO()
        np.save(buffer, table, allow_pickle=False)
        data = buffer.getvalue()
        checksum = _checksum(data)
        path = folder / f"{modality}-{index:05d}-{checksum}.npy"
        write_atomically(path, data)
        return cls(path, modality, index, checksum)

    def open(self, dim: int) -> npt.NDArray[np.void]:
        """The rows, memory-mapped: a structured array, shape (n,), fields `key` and `feature` (dim,).

        Raises:
            DistilvlError: the file cannot be read, is cut short, or holds something else.
        """
        try:
            begin, shape, dtype = _layout(self.path)
            if dtype != _row_type(dim) or len(shape) != 1:
                raise self._broken(f"it holds {dtype} of shape {shape}, not keys and rows of width {dim}")
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return np.frombuffer(mapped, dtype, shape[0], begin)
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:
            raise self._broken(" ".join(str(error).split())) from error

    def keys(self, dim: int) -> npt.NDArray[np.bytes_]:
        """Its keys, copied into memory: shape (n,), dtype `S16`."""
        return self.open(dim)["key"].copy().view(f"S{KEY_BYTES}")

    def verify(self, dim: int) -> npt.NDArray[np.bytes_]:
        """Read every byte again and return the keys; `DistilvlError` names the shard when anything is off."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error
        if _checksum(data) != self.checksum:
            raise self._broken("its checksum is not the one in its name")
        table = self.open(dim)
        if not np.isfinite(table["feature"]).all():
            raise self._broken("it holds numbers that are not finite")
        return table["key"].copy().view(f"S{KEY_BYTES}")

    def _unreadable(self, error: OSError) -> DistilvlError:
        return DistilvlError(
            f"shard {self.path} cannot be read: {error.strerror or error}.",
            "Mend that and run the same command again; the file itself may be whole.",
        )

    def _broken(self, reason: str) -> DistilvlError:
        return DistilvlError(
            f"shard {self.path} is broken: {reason}.",
            "Delete that file and run the same `distilvl features` command again: only its items are asked anew.",
        )


# A file of a shard's name never changes, and reading the header costs ten times what mapping the file does.
@lru_cache(maxsize=65_536)
def _layout(path: Path) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Where a `.npy` file's numbers begin, in bytes, their shape and type; `ValueError` when it is no such file."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"it is a .npy file of version {version[0]}.{version[1]}, not 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return file.tell(), shape, dtype


def _row_type(dim: int) -> np.dtype[np.void]:
    return np.dtype([("key", f"V{KEY_BYTES}"), ("feature", "<f2", (dim,))])


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
