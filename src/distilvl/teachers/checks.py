"""Teachers behind checks: each call gives one array of embeddings, of the teacher's dimension, or an error."""

from __future__ import annotations

import logging
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.teachers.base import Teacher, said
from distilvl.teachers.outputs import Embeddings, UnfitOutputError, embeddings_of

Modality = Literal["image", "text"]

_PROTOCOL = "A teacher has name, revision, dim, encode_images(images) and encode_texts(texts)."
_OWN = ("_teacher", "name", "revision", "dim")
_LONGEST_NAME = 80
# Of one item alone and among others. Rounding, of bfloat16 too, leaves cosines above it; dropout does not.
SAME = 0.99
_logger = logging.getLogger("distilvl")


def checked(teacher: object, spec: str = "") -> CheckedTeacher:
    """`teacher` behind checks, or itself if it is so already; `DistilvlError` saying what it lacks if it is no teacher.

    `spec` is what error messages call it until its name is known; its class if not given.
    """
    if type(teacher) is CheckedTeacher:
        return teacher
    return CheckedTeacher(teacher, spec or f"an object of the class {type(teacher).__name__}")


def bare(teacher: Teacher) -> Teacher:
    """The teacher itself, where `teacher` stands for it; for `encode`, which does the same checks."""
    return teacher.__dict__["_teacher"] if type(teacher) is CheckedTeacher else teacher


class CheckedTeacher:
    """Stands for a teacher in every way: its attributes, also those that are set, and its class are the teacher's."""

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

    def __repr__(self) -> str:
        return repr(self._teacher)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # not there yet, while an object is copied
            raise AttributeError(name)
        return getattr(self._teacher, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._teacher, name, value)
        if name in _OWN:
            object.__setattr__(self, name, value)

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to embeddings, shape (n, dim); raises as `encode`, and `NotAListError`."""
        images = list_of_images(images)
        names = [str(getattr(image, "filename", "")) or f"image {k}" for k, image in enumerate(images)]
        return self._encode("image", images, names)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to embeddings, shape (n, dim); raises as `encode`, and `NotAListError`."""
        texts = list_of_texts(texts)
        return self._encode("text", texts, texts)

    def _encode(self, modality: Modality, items: Sequence[Any], names: Sequence[str]) -> npt.NDArray[Any]:
        if not items:
            return np.zeros((0, self.dim), np.float32)
        # Those who call this in a server or an index find the item at fault in their own way.
        return encode(self._teacher, modality, items, names, find_fault=False)


def _surface(teacher: object, spec: str) -> dict[str, Any]:
    """Name, revision and dimension of `teacher`; `DistilvlError` naming what is wrong where it is no teacher."""
    if isinstance(teacher, type):
        raise DistilvlError(f"{teacher.__name__} is a class, not a teacher.", f"Give {teacher.__name__}().")
    for method in ("encode_images", "encode_texts"):
        if not callable(_attribute(teacher, method, spec)):
            raise DistilvlError(f"{spec} is not a teacher: it has no method {method!r}.", _PROTOCOL)
    found: dict[str, Any] = {name: _attribute(teacher, name, spec) for name in ("name", "revision", "dim")}
    for name in ("name", "revision"):
        if not isinstance(found[name], str) or not found[name]:
            raise _wrong(spec, name, found[name], "str")
    dim = found["dim"]
    try:
        # NumPy's whole numbers, too; True is none.
        found["dim"] = 0 if isinstance(dim, bool) else operator.index(dim)
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


def encode(
    teacher: Teacher, modality: Modality, items: Sequence[Any], names: Sequence[str], *, find_fault: bool = True
) -> Embeddings:
    """The embeddings that `teacher` gives for `items`: (n, dim), in a float type of NumPy, finite, none all zero.

    Args:
        teacher, modality: any; of all items.
        items, names: RGB images or texts, at least one, and what an error message calls each.
        find_fault: when the teacher fails at several items, try again, in halves, to name the one at fault; otherwise
            the first is named.

    Raises:
        DistilvlError: the teacher fails, or gives no such embeddings; it names class and item.
    """
    method = "encode_images" if modality == "image" else "encode_texts"
    call: Callable[[Any], object] = getattr(teacher, method)
    try:
        # A list of its own: what a teacher does to it must not change ours.
        output = call(list(items))
    except DistilvlError:
        raise
    # Anything at all can go wrong in code that is not ours.
    except (Exception, SystemExit) as error:
        where, remedy = named(names, modality), "Mend the teacher, or leave that item out."
        if find_fault and len(items) > 1:
            alone = _at_fault(call, items)
            if alone is None:
                where, remedy = f"{where}, together", "Let it work through them in smaller batches."
            else:
                where = named([names[alone]], modality)
        raise DistilvlError(f"{who(teacher)} failed in {method} at {where}: {said(error)}.", remedy) from error
    return checked_output(teacher, output, modality, names)


def checked_output(teacher: Teacher, output: object, modality: Modality, names: Sequence[str]) -> Embeddings:
    """What `teacher` gave for the items called `names`, as embeddings; as `encode`."""
    try:
        found = embeddings_of(output, len(names))
    except UnfitOutputError as error:
        at = named(names if error.position is None else [names[error.position]], modality)
        raise DistilvlError(f"{who(teacher)} returned {error.reason} for {at}.", error.remedy) from error
    it, these, (count, dim) = who(teacher), named(names, modality), found.shape
    if count != len(names):
        remedy = "Return one embedding an item, in the order of the items."
        raise DistilvlError(f"{it} gave {count} embeddings for {len(names)} {modality}s: {these}.", remedy)
    if dim != teacher.dim:
        remedy = "Images and texts share one space: give embeddings of that dimension for both, or set dim to theirs."
        what = f"embeddings of dimension {dim} for {these}, but its dim is {teacher.dim}"
        raise DistilvlError(f"{it} gave {what}.", remedy)
    # The largest number tells all: squares of float16, or of huge numbers, would overflow.
    largest = np.abs(found).max(axis=1)
    unfit = ~(np.isfinite(largest) & (largest > 0))
    if unfit.any():
        first = int(np.argmax(unfit))
        what = "all zero" if largest[first] == 0 else "not finite"
        these = f"{named([names[first]], modality)} ({int(unfit.sum())} of {count} items)"
        remedy = "Check that item and the teacher: such features cannot be learned from."
        raise DistilvlError(f"{it} gave features that are {what} for {these}.", remedy)
    return found


def _at_fault(call: Callable[[Any], object], items: Sequence[Any]) -> int | None:
    """The first item at which `call` fails alone, found by halving; None where all of them together are too much."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(call, items[low:middle]):
            high = middle
        else:
            low = middle
    return low if _fails(call, items[low:high]) else None


def _fails(call: Callable[[Any], object], items: Sequence[Any]) -> bool:
    try:
        call(list(items))
    except (Exception, SystemExit):  # whatever it was the first time
        return True
    return False


def look_at_first(
    teacher: Teacher, modality: Modality, items: Sequence[Any], names: Sequence[str], found: Embeddings
) -> None:
    """Look at the embeddings (n, D) that `teacher` gave for its first `items`, which are all different.

    Where all of them are equal, that is said and no more: perhaps the items are, to the eye. A teacher that holds a
    PyTorch module in training mode encodes the first item once more; `DistilvlError` if its dropout makes it another.
    """
    if len(found) > 1 and (found == found[0]).all():
        message = "%s gives the same embedding for all of the first %d %ss (%s): does it look at them?"
        _logger.warning(message, who(teacher), len(found), modality, named(names, modality))
    module = module_in_training(teacher)
    if module is None:
        return
    one, other = found[0].astype(np.float64), encode(teacher, modality, items[:1], names[:1])[0].astype(np.float64)
    if one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) < SAME:
        these = f"another embedding for {named(names[:1], modality)} the second time"
        remedy = "Call model.eval() where it is made."
        raise DistilvlError(f"{who(teacher)} gives {these}: its {module} is in training mode.", remedy)


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


def who(teacher: Teacher) -> str:
    """What error messages call `teacher`: name and class."""
    return f"teacher {teacher.name!r} (class {teacher.__class__.__name__})"


def named(names: Sequence[str], modality: Modality) -> str:
    """The first of the items called `names`, of a long text its start, of a long path its end; and how many more."""
    name = names[0]
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}…" if modality == "text" else f"…{name[-_LONGEST_NAME:]}"
    return repr(name) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
