"""Several stores read as one teacher: the mean of their embeddings, or all of them side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut, all_left_out
from distilvl.errors import DistilvlError
from distilvl.features.manifest import Manifest
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore, VerifyReport
from distilvl.io.hashes import Keys, unpack_keys

_SPEC = re.compile(r"(mean|concat):(.+)", re.DOTALL)
_REMEDY = "Write mean:STORE,STORE or concat:STORE,STORE with the folders of finished stores."


def is_ensemble(path: str | Path) -> bool:
    """Whether `path` is `mean:...` or `concat:...`, and no folder of that name."""
    return _SPEC.fullmatch(str(path)) is not None and not Path(path).is_dir()


def is_there(path: str | Path) -> bool:
    """Whether the folder `path`, or every folder that an ensemble names, is there."""
    return all(Path(folder).is_dir() for folder in (_folders(path) if is_ensemble(path) else [path]))


def absolute(path: str | Path) -> str:
    """`path`, a store's or an ensemble's, so that it is found from any folder."""
    match = _SPEC.fullmatch(str(path)) if is_ensemble(path) else None
    if match is None:
        return Path(path).resolve().as_posix()
    return f"{match[1]}:{','.join(Path(folder).resolve().as_posix() for folder in _folders(path))}"


def open_ensemble(spec: str | Path) -> EnsembleStore:
    """The ensemble that `spec` names: `mean:A,B` or `concat:A,B` with two or more stores, no comma in their paths."""
    match = _SPEC.fullmatch(str(spec))
    folders = _folders(spec)
    if match is None or len(folders) < 2 or not all(folders):
        raise DistilvlError(f"{str(spec)!r} is no ensemble of stores.", _REMEDY)
    return EnsembleStore(Path(spec), match[1], [FeatureStore.open(folder) for folder in folders])


def _folders(spec: str | Path) -> list[str]:
    match = _SPEC.fullmatch(str(spec))
    return [folder.strip() for folder in match[2].split(",")] if match else []


class EnsembleStore(FeatureStore):
    """Several stores, read as one; an item is held when all of them hold it.

    With u_k the L2-normalised embedding of an item in store k, `mean` gives norm(sum_k u_k), and `concat` gives
    norm([u_1, u_2, ...]), whose dot products are the means of the stores' dot products.
    """

    def __init__(self, path: Path, kind: str, members: Sequence[FeatureStore]) -> None:
        dims = [member.manifest.dim for member in members]
        if kind == "mean" and len(set(dims)) > 1:
            problem = f"{path}: a mean needs stores of one dimension, and these have {' and '.join(map(str, dims))}."
            raise DistilvlError(problem, "Use concat:, or teachers of one embedding dimension.")
        self.path, self._kind, self.members = path, kind, list(members)
        manifests = [member.manifest for member in members]
        known = [one.num_parameters for one in manifests if one.num_parameters is not None]
        self.manifest = Manifest(
            teacher=f"{kind}({', '.join(one.teacher for one in manifests)})",
            revision="+".join(one.revision for one in manifests),
            dim=dims[0] if kind == "mean" else sum(dims),
            preprocessing="; ".join(one.preprocessing for one in manifests),
            num_parameters=sum(known) if len(known) == len(members) else None,
            # Stores with other crops of an image have none in common but the whole one.
            views=manifests[0].views if len({one.views for one in manifests}) == 1 else None,
        )

    @property
    def left_out(self) -> LeftOut:
        """What was left out of any of the stores."""
        return all_left_out({str(member.path): member.left_out for member in self.members})

    @property
    def counts(self) -> dict[str, int]:
        """Number of distinct items that all stores hold, under "image" and "text"."""
        return {"image": len(self.keys("image")), "text": len(self.keys("text"))}

    def keys(self, modality: Modality) -> Keys:
        """Keys that all stores hold, sorted."""
        return reduce(np.intersect1d, [member.keys(modality) for member in self.members])

    def missing(self, modality: Modality, keys: Sequence[bytes]) -> list[int]:
        """Indices of the `keys` that any of the stores lacks, ascending."""
        return sorted({index for member in self.members for index in member.missing(modality, keys)})

    def require(self, modality: Modality, keys: Sequence[bytes] | Keys, names: Sequence[str] | None = None) -> None:
        """`DistilvlError` that names the first of `keys` that one of the stores does not hold."""
        for member in self.members:
            member.require(modality, keys, names)

    def verify(self) -> VerifyReport:
        """Verify every store; images and texts are those that all of them hold."""
        reports = [member.verify() for member in self.members]
        shards, repeated = sum(report.shards for report in reports), sum(report.repeated for report in reports)
        crops = 0 if self.manifest.views is None else self.manifest.views.held(unpack_keys(self.keys("image")))
        return VerifyReport(shards, self.counts["image"] - crops, self.counts["text"], repeated, crops)

    def refresh(self) -> None:
        """Refresh every store."""
        for member in self.members:
            member.refresh()

    def add_stored(self, *_: object, **__: object) -> None:
        """Raises `DistilvlError`: an ensemble is only read."""
        raise DistilvlError(f"{self.path} is an ensemble of several stores.", "Write to one of them.")

    def _embeddings(self, modality: Modality, keys: Keys, names: Sequence[str] | None) -> npt.NDArray[np.float16]:
        wide = [member._embeddings(modality, keys, names).astype(np.float64) for member in self.members]
        parts = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in wide]
        joined = np.sum(parts, axis=0) if self._kind == "mean" else np.concatenate(parts, axis=1)
        lengths = np.linalg.norm(joined, axis=1)
        # Embeddings that cancel out leave rounding errors, which are no direction.
        if (lengths < 1e-3).any():
            first = int(np.argmin(lengths))
            name = names[first] if names is not None else unpack_keys(keys)[first].hex()
            problem = f"{self.path}: the stores' embeddings of the {modality} {name!r} cancel out."
            raise DistilvlError(problem, "Use concat: instead of mean:.")
        embeddings: npt.NDArray[np.float16] = (joined / lengths[:, None]).astype(np.float16)
        return embeddings


FeatureStore._other_kinds.append((is_ensemble, open_ensemble))
