"""A teacher that is not ours, behind checks: it is given lists,
and its first embeddings are looked at before the rest."""

from __future__ import annotations

import logging
import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.teachers.base import Teacher
from distilvl.teachers.outputs import Modality, Rows, ask, named, said, who

_PROTOCOL = "A teacher has name, revision, dim, encode_images(images) and encode_texts(texts)."
_OWN = ("_teacher", "name", "revision", "dim")


def checked(teacher: object, spec: str = "") -> CheckedTeacher:
    """`teacher` behind checks; one that is already comes back as it is.

    Args:
        teacher: any object with the surface of `Teacher`.
        spec: what error messages call it until its name is known; its class if not given.

    Raises:
        DistilvlError: it is no teacher; the message says what it lacks.
    """
    if type(teacher) is CheckedTeacher:
        return teacher
    return CheckedTeacher(teacher, spec or f"an object of the class {type(teacher).__name__}")


def bare(teacher: Teacher) -> Teacher:
    """The teacher itself, where `teacher` stands for it; for `ask`, which does the same checks."""
    return teacher.__dict__["_teacher"] if type(teacher) is CheckedTeacher else teacher


class CheckedTeacher:
    """Stands for a teacher in every way: its attributes, also those that are set, and its class are the teacher's.

    Args:
        teacher: as for `checked`.
        spec: as for `checked`.

    Attributes:
        name, revision, dim: the teacher's.
    """

    name: str
    revision: str
    dim: int

    def __init__(self, teacher: object, spec: str) -> None:
        object.__setattr__(self, "_teacher", teacher)
        for name, value in _surface(teacher, spec).items():
            object.__setattr__(self, name, value)

    @property
    def __class__(self) -> type:
        return type(self._teacher)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError("a teacher keeps its class")

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # not there yet, while an object is copied
            raise AttributeError(name)
        return getattr(self._teacher, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._teacher, name, value)
        if name in _OWN:
            object.__setattr__(self, name, value)

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to rows, shape (n, dim); raises as `ask`, and `NotAListError`."""
        listed = list_of_images(images)
        names = [str(getattr(image, "filename", "")) or f"image {k}" for k, image in enumerate(listed)]
        return self._ask("image", listed, names)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to rows, shape (n, dim); raises as `ask`, and `NotAListError`."""
        listed = list_of_texts(texts)
        return self._ask("text", listed, listed)

    def _ask(self, modality: Modality, items: Sequence[Any], names: Sequence[str]) -> npt.NDArray[Any]:
        if not items:
            return np.zeros((0, self.dim), np.float32)
        # Those who call this in a server or an index find the item at fault in their own way.
        return ask(self._teacher, modality, items, names, find_fault=False)


def _surface(teacher: object, spec: str) -> dict[str, Any]:
    """Name, revision and width of `teacher`; `DistilvlError` naming what is wrong where it is no teacher."""
    if isinstance(teacher, type):
        raise DistilvlError(f"{teacher.__name__} is a class, not a teacher.", f"Give {teacher.__name__}().")
    for method in ("encode_images", "encode_texts"):
        if not callable(_attribute(teacher, method, spec)):
            raise DistilvlError(f"{spec} is not a teacher: it has no method {method!r}.", _PROTOCOL)
    found: dict[str, Any] = {}
    for name in ("name", "revision"):
        found[name] = _attribute(teacher, name, spec)
        if not isinstance(found[name], str) or not found[name]:
            raise _wrong(spec, name, found[name], "str")
    dim = _attribute(teacher, "dim", spec)
    try:
        # NumPy's whole numbers, too; True is none.
        found["dim"] = 0 if isinstance(dim, bool) else operator.index(dim)  # type: ignore[arg-type]
    except TypeError as error:
        raise _wrong(spec, "dim", dim, "int") from error
    if found["dim"] < 1:
        raise _wrong(spec, "dim", dim, "int above 0")
    return found


def _attribute(teacher: object, name: str, spec: str) -> object:
    try:
        return getattr(teacher, name, None)
    # A property is code that is not ours.
    except Exception as error:
        raise DistilvlError(f"{spec} is not a teacher: its {name!r} raises {said(error)}.", _PROTOCOL) from error


def _wrong(spec: str, name: str, value: object, wanted: str) -> DistilvlError:
    if value is None:
        return DistilvlError(f"{spec} is not a teacher: it has no {name!r}.", _PROTOCOL)
    shown = "a method" if callable(value) else repr(value)[:80]
    return DistilvlError(f"{spec} is not a teacher: its {name!r} is {shown}, not {wanted}.", _PROTOCOL)


# Of one item alone and among others. Rounding, of bfloat16 too, leaves cosines above it; dropout does not.
SAME = 0.99
_logger = logging.getLogger("distilvl")


def look_at_first(teacher: Teacher, modality: Modality, items: Sequence[Any], names: Sequence[str], rows: Rows) -> None:
    """Look at the rows (n, D) that `teacher` gave for its first `items`, which are all different.

    Where all rows are equal, that is said and no more: perhaps the items are, to the eye. A teacher that holds a
    PyTorch module in training mode is asked about the first item once more, since its dropout, if there is any, would
    make every feature random; other teachers are asked nothing.

    Raises:
        DistilvlError: asked again, the teacher gives another row.
    """
    if len(rows) > 1 and (rows == rows[0]).all():
        _logger.warning(
            "%s gives the same row for all of the first %d %ss (%s): does it look at them?",
            who(teacher), len(rows), modality, named(names, modality),
        )  # fmt: skip
    module = module_in_training(teacher)
    if module is None:
        return
    again = ask(teacher, modality, items[:1], names[:1])
    if _cosine(rows[0], again[0]) < SAME:
        raise DistilvlError(
            f"{who(teacher)} gives another row for {named(names[:1], modality)} when asked again: its {module} is "
            "in training mode.",
            "Call model.eval() where it is made.",
        )


def module_in_training(teacher: object) -> str | None:
    """The name of an attribute of `teacher` that is a PyTorch module, itself or a part of it in training mode."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    held = {type(teacher).__name__: teacher, **getattr(teacher, "__dict__", {})}
    for name, value in held.items():
        if isinstance(value, torch.nn.Module) and any(part.training for part in value.modules()):
            return str(name)
    return None


def _cosine(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
