"""Teachers behind an embeddings API. Needs the extra `api`."""

from distilvl.teachers.http.dialects import DIALECTS, Dialect
from distilvl.teachers.http.settings import HttpSettings
from distilvl.teachers.http.teacher import HttpTeacher

__all__ = ["DIALECTS", "Dialect", "HttpSettings", "HttpTeacher"]
