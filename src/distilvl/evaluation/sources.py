"""Where features to score come from: a run, a model, or a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.encode import EncodedDataset, Model
from distilvl.features import FeatureStore, image_key, text_key
from distilvl.features.ensemble import is_ensemble
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.runtime import is_export
from distilvl.students.storage import load_student
from distilvl.teachers.loading import load_teacher


def open_source(spec: str | Path) -> Model | FeatureStore:
    """The model or store that `spec` names.

    Args:
        spec: a run folder; a student folder or another SentenceTransformer's; an exported one; a feature store, or
            `mean:A,B` or `concat:A,B` of several; or what `load_teacher` takes.

    Raises:
        DistilvlError: none of them, or a run without a finished student.
    """
    path = Path(spec)
    if is_ensemble(spec) or ((path / MANIFEST_NAME).is_file() and not is_export(path)):
        return FeatureStore.open(path)
    if (path / "modules.json").is_file():
        return load_student(path) if _has_routes(path) else load_teacher(str(spec))
    if (path / "config.yaml").is_file():
        return load_student(student_folder(path))
    if (path / "config.json").is_file() or is_export(str(spec).partition("?")[0]):
        return load_teacher(str(spec))
    if path.exists() or (path.is_absolute() and not str(spec).rpartition(":")[0].endswith(".py")):
        return load_student(path)  # says what is wrong with it
    return load_teacher(str(spec))


def student_folder(run: Path) -> Path:
    """The student of a run folder; `DistilvlError` when it is not finished."""
    if not (run / "student").is_dir():
        raise DistilvlError(
            f"run {run} has no finished student yet.",
            "Run its `distilvl train` command again to finish it.",
        )
    return run / "student"


def run_of(spec: str | Path) -> Path | None:
    """The run folder that `spec` is, or is the student of."""
    path = Path(spec)
    return next((folder for folder in (path, path.parent) if (folder / "config.yaml").is_file()), None)


def read_store(store: FeatureStore, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """A dataset's features as a store holds them; images are read for their content hash, but not decoded.

    Raises:
        DistilvlError: the store lacks an item.
        BadImageError: an unreadable image, unless `skip_bad`.
    """
    records, keys, bad = [], [], LeftOut()
    for record in dataset:
        try:
            keys.append(image_key(record.image.read()))
            records.append(record)
        except BadImageError as error:
            if not skip_bad:
                raise
            bad.add_bad(error, record.image.name)
    bad.log(dataset.name)
    read = dataset.only(records)
    images = store.images(keys, names=[record.image.name for record in read])
    texts = store.texts([text_key(caption) for caption in read.captions], names=read.captions)
    return EncodedDataset(read, keys, images.astype(np.float32), texts.astype(np.float32), bad)


def _has_routes(folder: Path) -> bool:
    """Whether the folder's first module is a router, as a student's is."""
    return '.Router"' in (folder / "modules.json").read_text(encoding="utf-8")
