"""Shards: `.npy` files of keys and embeddings whose names hold their checksums; what they take; where a key lies."""

from __future__ import annotations

import hashlib
import io
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, one_line
from distilvl.features.manifest import Manifest
from distilvl.io.files import write_atomically
from distilvl.io.hashes import KEY_BYTES, Keys, file_hash

Places = npt.NDArray[np.int32]
Modality = Literal["image", "text"]
_SUM_DIGITS = 16  # of a SHA-256, in a file's name
_NAME = re.compile(r"(image|text)-(\d{5,})-([0-9a-f]{16})\.npy")


class KeyIndex:
    """Maps keys to (shard, row). Of a key that is stored twice the first one counts.

    Keys are kept in a few sorted runs, each more than twice as long as the next, so that adding n keys shard by shard
    costs O(n log n) in all, and a search O(log^2 n).
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, Places]] = []  # sorted distinct keys, (n,), and their places, (n, 2)

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    @classmethod
    def of_shards(cls, shards: list[Keys]) -> KeyIndex:
        """Index of several shards' keys at once; row r of `shards[s]` is at place (s, r)."""
        index = cls()
        if sum(map(len, shards)):
            places = [_places_of(shard, len(keys)) for shard, keys in enumerate(shards)]
            index._runs = [_run(np.concatenate(shards), np.concatenate(places))]
        return index

    def add(self, keys: Keys, shard: int) -> None:
        """Take in a new shard's keys, shape (n,); those that are known already stay where they are."""
        known, _ = self.find(keys)
        if known.all():
            return
        run = _run(keys[~known], _places_of(shard, len(keys))[~known])
        while self._runs and len(self._runs[-1][0]) <= 2 * len(run[0]):
            longer = self._runs.pop()
            run = _run(np.concatenate([longer[0], run[0]]), np.concatenate([longer[1], run[1]]))
        self._runs.append(run)

    def find(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], Places]:
        """Which of `keys` are known, shape (n,), and their places, shape (n, 2); (-1, -1) where unknown."""
        known = np.zeros(len(keys), dtype=np.bool_)
        places = np.full((len(keys), 2), -1, dtype=np.int32)
        for held, held_places in self._runs:
            at = np.minimum(np.searchsorted(held, keys), len(held) - 1)
            here = held[at] == keys
            places[here] = held_places[at[here]]
            known |= here
        return known, places


def _run(keys: Keys, places: Places) -> tuple[Keys, Places]:
    unique, first = np.unique(keys, return_index=True)
    return unique, places[first]


def _places_of(shard: int, rows: int) -> Places:
    return np.stack([np.full(rows, shard), np.arange(rows)], axis=1).astype(np.int32)


def storable_embeddings(
    features: npt.NDArray[Any], count: int, manifest: Manifest, owner: str, names: Sequence[str] | None = None
) -> npt.NDArray[np.float16]:
    """Check `features` and make them float16, L2-normalised when the manifest says so.

    They should have shape (count, D). Error messages call the one whose they are `owner`, and the items by their
    `names`, or by their position. `DistilvlError` for wrong shape or type, or an embedding that is not finite or all
    zero; it names the first one.
    """
    if features.ndim != 2 or features.shape[0] != count:
        problem = f"{owner} was given features of shape {features.shape}, not ({count}, {manifest.dim})."
        raise DistilvlError(problem, "A teacher returns one embedding for each item.")
    if features.shape[1] != manifest.dim:
        problem = f"{owner} has dimension {manifest.dim}, but the features have dimension {features.shape[1]}."
        raise DistilvlError(problem, "Use the teacher that made the store, or another --out folder.")
    if not np.issubdtype(features.dtype, np.floating):
        problem = f"{owner} was given features of type {features.dtype}."
        raise DistilvlError(problem, "Features are floating-point numbers.")
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    good = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
    scaled = wide / np.where(good[:, None], lengths, 1) if manifest.normalized else wide
    # An embedding of tiny or huge numbers is fine until it is rounded to float16; then the check below finds it.
    with np.errstate(over="ignore"):
        embeddings = scaled.astype(np.float16)
    good &= np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)
    if not good.all():
        first = int(np.argmin(good))
        item = repr(names[first]) if names is not None else f"row {first}"
        what = "all zero" if np.isfinite(embeddings[first]).all() else "not finite"
        problem = f"features that are {what} for {item} ({int((~good).sum())} of {count} embeddings)."
        remedy = "Check that item and the teacher: such features cannot be learned from."
        raise DistilvlError(f"{owner} was given {problem}", remedy)
    return embeddings


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
        names = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
        found = [cls(path, match[1], int(match[2]), match[3]) for path, match in names if match]
        return sorted(found, key=lambda shard: (shard.modality, shard.index, shard.checksum))

    @classmethod
    def write(cls, folder: Path, modality: str, index: int, keys: Keys, embeddings: npt.NDArray[np.float16]) -> Shard:
        """Store `keys`, shape (n,), and `embeddings`, shape (n, D), in one atomic step."""
        path = write_table(folder, f"{modality}-{index:05d}", keys, embeddings)
        return cls(path, modality, index, path.stem.rsplit("-", 1)[1])

    def open(self, dim: int) -> npt.NDArray[np.void]:
        """The embeddings, memory-mapped: a structured array, shape (n,), fields `key` and `feature` (dim,).

        The first time in a process all of it is read and compared with its checksum. `DistilvlError` where the file
        cannot be read, is not as it was written, or holds something else.
        """
        try:
            state = self.path.stat()
            if _checksum_of(self.path, state.st_mtime_ns, state.st_size) != self.checksum:
                raise self._broken(_CHANGED)
            begin, shape, dtype = _layout(self.path)
            if dtype != row_type(dim) or len(shape) != 1:
                raise self._broken(f"it holds {dtype} of shape {shape}, not keys and embeddings of dimension {dim}")
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return np.frombuffer(mapped, dtype, shape[0], begin)
        except OSError as error:
            raise self._unreadable(error) from error
        except ValueError as error:
            raise self._broken(one_line(error)) from error

    def keys(self, dim: int) -> npt.NDArray[np.bytes_]:
        """Its keys, copied into memory: shape (n,), dtype `S16`."""
        return self.open(dim)["key"].copy().view(f"S{KEY_BYTES}")

    def verify(self, dim: int) -> npt.NDArray[np.bytes_]:
        """Read every byte again and return the keys; `DistilvlError` names the shard when anything is off."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error
        if checksum(data) != self.checksum:
            raise self._broken(_CHANGED)
        table = self.open(dim)
        if not np.isfinite(table["feature"]).all():
            raise self._broken("it holds numbers that are not finite")
        return table["key"].copy().view(f"S{KEY_BYTES}")

    def _unreadable(self, error: OSError) -> DistilvlError:
        problem = f"shard {self.path} cannot be read: {error.strerror or error}."
        return DistilvlError(problem, "Mend that and run the same command again; the file itself may be whole.")

    def _broken(self, reason: str) -> DistilvlError:
        command = "run the same `distilvl features` command again: only its items are extracted anew"
        return DistilvlError(f"shard {self.path} is broken: {reason}.", f"Delete that file and {command}.")


_CHANGED = "its checksum is not the one in its name"


@lru_cache(maxsize=65_536)
def _checksum_of(path: Path, changed_ns: int, size: int) -> str:  # noqa: ARG001 (a changed file is another one)
    return file_hash(path)[:_SUM_DIGITS]


# A file of a shard's name never changes, and reading the header costs ten times what mapping the file does.
@lru_cache(maxsize=65_536)
def _layout(path: Path) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Where a `.npy` file's numbers begin, in bytes, their shape and type; `ValueError` when it is no such file."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"it is a .npy file of version {version[0]}.{version[1]}, not 1.0")
        try:
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        except Exception as error:  # the head is an expression of Python, whose parser raises many things
            raise ValueError(one_line(error, 200)) from error
        return file.tell(), shape, dtype


def write_table(folder: Path, name: str, keys: Keys, embeddings: npt.NDArray[Any], number: str = "<f2") -> Path:
    """Write a `.npy` file of (key, embedding), whose name begins with `name` and ends with its checksum."""
    table = np.empty(len(keys), dtype=row_type(embeddings.shape[1], number))
    table["key"], table["feature"] = keys.view(f"V{KEY_BYTES}"), embeddings
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    data = buffer.getvalue()
    path = folder / f"{name}-{checksum(data)}.npy"
    write_atomically(path, data)
    return path


def row_type(dim: int, number: str = "<f2") -> np.dtype[np.void]:
    """Of a table that `write_table` writes."""
    return np.dtype([("key", f"V{KEY_BYTES}"), ("feature", number, (dim,))])


def checksum(data: bytes) -> str:
    """The first 16 hex digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:_SUM_DIGITS]
