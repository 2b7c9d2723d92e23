"""Photographs that already have an embedding by the model's teacher, in a feature store, and those that have not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.ensemble import absolute
from distilvl.models.encoder import Encoder
from distilvl.models.loading import model_folder
from distilvl.runtime import is_export
from distilvl.search.about import StoredTeacher
from distilvl.search.photographs import Picture
from distilvl.search.table import Embeddings
from distilvl.students.folder import BASIS_NAME, read_basis, run_of

Features = str | Path | FeatureStore


class StoredEmbeddings:
    """A teacher's embeddings of photographs, in the axes of its student, as float32 of length one.

    `basis` (D, D) are these axes, none where they are the teacher's own.
    """

    def __init__(self, store: FeatureStore, basis: Embeddings | None) -> None:
        self._store, self._basis = store, basis

    @classmethod
    def of_index(cls, index: Path, home: Path, told: StoredTeacher, dim: int) -> StoredEmbeddings:
        """The store that an index remembers; `DistilvlError` if it is not there, or another teacher's by now."""
        try:
            store = FeatureStore.open(told.features)
        except DistilvlError as error:
            message = f"the feature store of {index} cannot be opened: {error}"
            remedy = "If it has moved, say where with --features; --rebuild --model makes the index anew without it."
            raise DistilvlError(message, remedy) from error
        _require_teacher(store, told, f"{index} has embeddings of")
        _require_dim(store, dim, f"{index}")
        return cls(store, read_basis(home))

    def of(self, ids: Sequence[str]) -> dict[str, Embeddings]:
        """The embeddings (D,) of the contents that the store holds, by their ids."""
        keys = [bytes.fromhex(one) for one in ids]
        lacking = set(self._store.missing("image", keys))
        held = [row for row in range(len(keys)) if row not in lacking]
        if not held:
            return {}
        rows = self._store.images([keys[row] for row in held]).astype(np.float32)
        rows = rows if self._basis is None else rows @ self._basis
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return {ids[row]: one for row, one in zip(held, rows, strict=True)}


def check_features(features: Features, encoder: Encoder) -> tuple[StoredTeacher, Path | None]:
    """What an index of `encoder` keeps of the store, and the folder with the student's basis, if it has one.

    `DistilvlError`: no store, or it is not known to be of the teacher in whose space the model's embeddings are.
    """
    store = features if isinstance(features, FeatureStore) else FeatureStore.open(features)
    _require_dim(store, encoder.dim, f"the model {encoder.name}")
    folder = model_folder(encoder.spec) if encoder.spec else None
    if len(encoder.dims) > 1 and (folder is None or (is_export(folder) and read_basis(folder) is None)):
        what = f"nothing tells the axes of the Matryoshka student {encoder.name} in its teacher's space."
        raise DistilvlError(what, "Name its folder; one that an earlier version exported, export again.")
    if (run := None if folder is None else run_of(folder)) is not None:
        # What reads configurations imports PyTorch.
        from distilvl.evaluation.teacher import run_teacher, shares_space

        if not shares_space(run):
            what = f"the student of {run} learnt without a teacher, and is in no teacher's space."
            raise DistilvlError(what, "Leave --features out, or name a distilled student.")
        if (teacher := run_teacher(run)) is not None:
            _require_teacher(store, StoredTeacher("", *teacher), f"the student of {run} learnt from")
    told = StoredTeacher(absolute(store.path), store.manifest.teacher, store.manifest.revision)
    return told, folder if folder is not None and read_basis(folder) is not None else None


def keep_basis(home: Path, student: Path | None) -> None:
    """Copy the student's basis to an index's files: it turns the teacher's embeddings wherever the student has gone."""
    if student is not None:
        shutil.copyfile(student / BASIS_NAME, home / BASIS_NAME)
    else:
        (home / BASIS_NAME).unlink(missing_ok=True)


class PhotoEncoder:
    """Embeds pictures: by the teacher's stored embedding where there is one, else by the model.

    `load` gives the model; with a store it is called only for a picture that the store lacks.
    """

    def __init__(self, load: Callable[[], Encoder], stored: StoredEmbeddings | None = None) -> None:
        self._load, self._stored = load, stored
        if stored is None:
            load()  # what is wrong with it shows before anything is read

    def encode(self, pictures: Sequence[Picture]) -> Mapping[str, tuple[Embeddings, bool]]:
        """By id the embedding (D,), and whether it is the teacher's, of decoded pictures of different content."""
        held = {} if self._stored is None else self._stored.of([picture.id for picture in pictures])
        found = {key: (vector, True) for key, vector in held.items()}
        rest = [picture for picture in pictures if picture.id not in held]
        if rest:
            vectors = self._load().encode_images([picture.image for picture in rest if picture.image is not None])
            found |= {picture.id: (vector, False) for picture, vector in zip(rest, vectors, strict=True)}
        return found


def _require_dim(store: FeatureStore, dim: int, whose: str) -> None:
    if store.manifest.dim != dim:
        what = f"the store {store.path} has dimension {store.manifest.dim}, and {whose} {dim}."
        raise DistilvlError(what, "Give a store of the student's own teacher.")


def _require_teacher(store: FeatureStore, told: StoredTeacher, who: str) -> None:
    found = StoredTeacher(told.features, store.manifest.teacher, store.manifest.revision)
    if found != told:
        what = f"{who} {told}, and the store {store.path} holds features of {found}."
        raise DistilvlError(what, "Give a store of that teacher.")
