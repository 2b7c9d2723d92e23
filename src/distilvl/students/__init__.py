"""Students: two towers and two heads as one SentenceTransformer, usable without this package."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilvl.students.build import build_student
    from distilvl.students.dual_encoder import DualEncoder
    from distilvl.students.storage import count_parameters, load_student, save_student

__all__ = ["DualEncoder", "build_student", "count_parameters", "load_student", "save_student"]

# Imported on first use: `distilvl.students.folder` must not load PyTorch.
_LAZY = {"DualEncoder": "dual_encoder", "build_student": "build"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'distilvl.students' has no attribute {name!r}")
    return getattr(import_module(f"distilvl.students.{_LAZY.get(name, 'storage')}"), name)
