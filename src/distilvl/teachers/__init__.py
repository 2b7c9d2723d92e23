"""Teachers: one protocol, one file for each kind. Knows nothing of data formats and training."""

from distilvl.teachers.base import Teacher
from distilvl.teachers.loading import load_teacher

__all__ = ["Teacher", "load_teacher"]
