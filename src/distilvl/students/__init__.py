"""Students: two towers and two heads as one SentenceTransformer, usable without this package."""

from distilvl.students.build import build_student
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.storage import count_parameters, load_student, save_student

__all__ = ["DualEncoder", "build_student", "count_parameters", "load_student", "save_student"]
