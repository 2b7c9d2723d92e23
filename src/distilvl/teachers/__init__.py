"""Teachers: one protocol, one file for each kind. Knows nothing of data formats and training."""

from importlib import import_module
from typing import Any

from distilvl.teachers.base import Teacher

__all__ = ["Teacher", "load_teacher"]


def __getattr__(name: str) -> Any:
    """`load_teacher`, the name under which `distilvl.models.load_model` was known here."""
    if name != "load_teacher":
        raise AttributeError(f"module 'distilvl.teachers' has no attribute {name!r}")
    return getattr(import_module("distilvl.models"), name)
