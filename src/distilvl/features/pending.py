"""Embeddings that are paid for but not in a shard yet; and what there is to know about a store without reading it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut
from distilvl.features.manifest import Manifest
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.io.files import PARTIAL_PREFIX, write_atomically
from distilvl.io.hashes import KEY_BYTES, pack_keys
from distilvl.io.leases import LEASE_PREFIX

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


@dataclass(frozen=True)
class StoreInfo:
    """A store at a glance.

    Attributes:
        path: its folder, or the spec of an ensemble.
        manifest: which teacher made it, and how its rows look.
        images: number of distinct images.
        texts: number of distinct captions.
        shards: number of finished shards.
        bytes: size of all its files.
        claims: blocks that writers work on now, or were working on when they were killed.
        unsettled: files of paid answers whose block is not finished.
        left_out: of the data that the teacher was asked about.
    """

    path: str
    manifest: Manifest
    images: int
    texts: int
    shards: int
    bytes: int
    claims: int
    unsettled: int
    left_out: LeftOut

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; the manifest's entries lie beside the others."""
        values = asdict(self) | {"left_out": self.left_out.as_dict()}
        return {"path": values.pop("path"), **values.pop("manifest"), **values}

    def __str__(self) -> str:
        values = {name: value for name, value in self.as_dict().items() if name != "left_out"}
        lines = [f"{name}: {value}" for name, value in values.items() if value not in ("", None)]
        return "\n".join([*lines, *(f"left out: {line}" for line in self.left_out.lines())])


def store_info(path: str | Path) -> StoreInfo:
    """About the store or ensemble at `path`; `DistilvlError` where `FeatureStore.open` raises it."""
    store = FeatureStore.open(path)
    folders = [member.path for member in store.members] or [store.path]
    files = [entry for folder in folders for entry in folder.iterdir()]
    names = [entry.name for entry in files]
    return StoreInfo(
        path=str(store.path),
        manifest=store.manifest,
        images=store.counts["image"],
        texts=store.counts["text"],
        shards=sum(name.endswith(".npy") and not name.startswith(".") for name in names),
        bytes=sum(entry.stat().st_size for entry in files if not entry.name.startswith(PARTIAL_PREFIX)),
        claims=sum(name.startswith(LEASE_PREFIX) for name in names),
        unsettled=sum(name.startswith(ANSWER_PREFIX) for name in names),
        left_out=store.left_out,
    )
