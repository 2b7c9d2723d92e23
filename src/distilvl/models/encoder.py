"""`load_encoder`: whatever turns pictures and texts into rows of one space, as unit float32 rows."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.runtime import is_export
from distilvl.runtime.manifest import MANIFEST_NAME
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import checked
from distilvl.teachers.outputs import who

Rows = npt.NDArray[np.float32]

# A hash of weights or a commit, with a number format perhaps, says which model it is, whatever its folder is called.
_CONTENT_HASH = re.compile(r"[0-9a-f]{16,}(-[a-z0-9]+)?")


class Encoder:
    """A model with the surface of `Teacher`, whose rows are unit float32.

    Args:
        model: the model.
        spec: what `load_encoder` loads it from; empty for one that was made in Python.
        one_call_at_a_time: for models that cannot be called from several threads at once, as most cannot.

    Attributes:
        widths: in which its rows may be used: the model's own, and those that a Matryoshka model was trained for and
            names in an attribute `matryoshka_widths`. Rows of any other are worth nothing when they are cut.
    """

    def __init__(self, model: Teacher, spec: str = "", *, one_call_at_a_time: bool = True) -> None:
        self._model = checked(model)
        self._turn: AbstractContextManager[Any] = threading.Lock() if one_call_at_a_time else nullcontext()
        self.name, self.revision, self.dim = self._model.name, self._model.revision, self._model.dim
        self.widths = frozenset({self.dim, *getattr(model, "matryoshka_widths", ())})
        self.spec = spec

    @property
    def info(self) -> ModelInfo:
        """What an index keeps of it."""
        return ModelInfo(self.spec, self.name, self.revision, self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Rows:
        """RGB images to unit rows, shape (n, D).

        Raises:
            DistilvlError: a row that is not finite, is zero, or has another width.
            NotAListError: one picture instead of a list.
        """
        with self._turn:
            return self._unit(self._model.encode_images(images), "image")

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Texts to unit rows, shape (n, D).

        Raises:
            DistilvlError: a row that is not finite, is zero, or has another width.
            NotAListError: one text instead of a list.
        """
        with self._turn:
            return self._unit(self._model.encode_texts(texts), "text")

    def _unit(self, rows: npt.NDArray[Any], kind: str) -> Rows:
        with np.errstate(over="ignore"):
            wide = np.asarray(rows, dtype=np.float32)
            norms = np.linalg.norm(wide, axis=1, keepdims=True)
        # Numbers that are fine may be too large or too small for float32, or their squares.
        good = np.isfinite(norms) & (norms > 0)
        if not good.all():
            raise DistilvlError(
                f"{who(self._model)} gave numbers too large or too small for float32 for {kind} {int(np.argmin(good))} "
                "of a batch.",
                "Let it give unit rows.",
            )
        return np.asarray(wide / norms, dtype=np.float32)


def load_encoder(spec: str | Path) -> Encoder:
    """The model that `spec` names.

    Args:
        spec: a run folder (its finished student is taken), a student's folder, a folder that `distilvl export` wrote
            (needs no torch; `FOLDER?precision=fp32` chooses one), or what `distilvl.load_teacher` takes. An open model
            is wrapped with `Encoder(model)`.

    Raises:
        DistilvlError: none of them, or a run without a finished student.
    """
    body, mark, options = str(spec).partition("?")
    path = Path(body)
    if not path.is_dir():
        return _teacher(str(spec), str(spec))
    absolute = f"{path.resolve()}{mark}{options}"
    if (path / MANIFEST_NAME).is_file() and not is_export(path):
        raise DistilvlError(
            f"{path} is no exported student; if it is a feature store, it knows only the items that it holds.",
            "Give a run, a student's folder, an exported folder, or a teacher.",
        )
    if (path / "config.yaml").is_file() and not (path / "modules.json").is_file():
        from distilvl.evaluation.sources import student_folder

        return _teacher(f"{student_folder(path.resolve())}{mark}{options}", absolute)
    return _teacher(absolute, absolute)


def is_same_model(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether rows of both may stand in one index; a folder that was moved or renamed stays what it is."""
    if (one.revision, one.dim) != (other.revision, other.dim):
        return False
    return one.name == other.name or _CONTENT_HASH.fullmatch(one.revision) is not None


def _teacher(spec: str, kept: str) -> Encoder:
    from distilvl.teachers import load_teacher

    return Encoder(load_teacher(spec), kept)


@dataclass(frozen=True)
class ModelInfo:
    """The model whose rows an index holds.

    Attributes:
        spec: what `load_encoder` takes; an absolute path where it is a folder.
        name: the model's.
        revision: which version of it.
        dim: width D of its rows.
    """

    spec: str
    name: str
    revision: str
    dim: int
