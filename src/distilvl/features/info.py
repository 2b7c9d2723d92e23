"""What there is to know about a store without reading its rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distilvl.data.left_out import LeftOut
from distilvl.features.answers import ANSWER_PREFIX
from distilvl.features.atomic import PARTIAL_PREFIX
from distilvl.features.claims import CLAIM_PREFIX
from distilvl.features.manifest import Manifest
from distilvl.features.store import FeatureStore


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
        claims=sum(name.startswith(CLAIM_PREFIX) for name in names),
        unsettled=sum(name.startswith(ANSWER_PREFIX) for name in names),
        left_out=store.left_out,
    )
