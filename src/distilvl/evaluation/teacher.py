"""What a run, or a student's folder, says of the teacher: which one, where its features are, and in which axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from distilvl.config import Config, FitConfig
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.ensemble import is_there
from distilvl.recipes import load_saved
from distilvl.students.folder import read_basis


class TeacherName(NamedTuple):
    """Features are of one teacher where both are equal."""

    teacher: str
    revision: str

    def __str__(self) -> str:
        return f"{self.teacher!r} revision {self.revision!r}"

    @classmethod
    def of(cls, store: FeatureStore) -> TeacherName:
        """Whose features a store holds."""
        return cls(store.manifest.teacher, store.manifest.revision)


def run_store(run: Path) -> str | Path | None:
    """The store that a run learnt from: a folder, or `mean:` or `concat:` of some; none where it is not there."""
    inputs = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("inputs", {})
    store = inputs.get("features") or run / "features"
    return store if is_there(store) else None


def run_teacher(run: Path) -> TeacherName | None:
    """The teacher of a run, as its result names it, or else its store; none where neither is there."""
    try:
        named = json.loads((run / "result.json").read_text(encoding="utf-8"))["taught_by"]
        return TeacherName(str(named["teacher"]), str(named["revision"]))
    except (OSError, ValueError, KeyError, TypeError):
        store = run_store(run)
    return None if store is None else TeacherName.of(FeatureStore.open(store))


def in_teacher_space(config: Config | FitConfig) -> bool:
    """Whether a run of this configuration puts its student's embeddings into its teacher's space.

    It does not where no loss compares them with the teacher's and the heads begin at random, as in `contrastive`.
    """
    return config.needs_teacher or (isinstance(config, Config) and config.training.head_init != "random")


def shares_space(run: Path | None) -> bool:
    """`in_teacher_space` of the run in a folder; True where no run that can be read says it."""
    if run is None:
        return True
    try:
        return in_teacher_space(load_saved(run / "config.yaml"))
    except DistilvlError:  # with a loss of a package that is not here, say, which training needed and scoring does not
        return True


def turned(features: npt.NDArray[Any], student: Path | None) -> npt.NDArray[Any]:
    """Teacher features (n, D) in the axes that the student in this folder learnt.

    As they are, where it learnt no others, or those of a teacher of another dimension.
    """
    basis = None if student is None else read_basis(student)
    return features if basis is None or len(basis) != features.shape[1] else np.asarray(features @ basis)
