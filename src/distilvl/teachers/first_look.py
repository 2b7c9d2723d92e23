"""A look at a teacher's first answers: rows that do not depend on the item, or that change when it is asked again."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.teachers.ask import Modality, ask, named, who
from distilvl.teachers.base import Teacher
from distilvl.teachers.outputs import Rows

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
