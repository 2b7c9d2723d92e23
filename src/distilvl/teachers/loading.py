"""`load_teacher`: one door to all kinds of teachers."""

from __future__ import annotations

import re
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.teachers.accepted import ACCEPTED_TEACHERS
from distilvl.teachers.base import Teacher

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_teacher(spec: str) -> Teacher:
    """The teacher that `spec` names.

    Args:
        spec: `demo` (the built-in teacher of the `scenes` world); `path/to/file.py:Class`, a class that is
            made without arguments; or the folder or hub id of a SentenceTransformer that takes images and
            text.

    Raises:
        DistilvlError: it cannot be found or loaded, or is not a teacher of images and text.
    """
    file, _, name = spec.rpartition(":")
    if file.endswith(".py"):
        from distilvl.teachers.python_file import teacher_from_file

        return teacher_from_file(Path(file), name)
    if spec.endswith(".py"):
        raise DistilvlError(f"the teacher {spec!r} names no class.", "Write path/to/file.py:Class.")
    if spec == "demo":
        from distilvl.teachers.demo_network import DemoTeacher

        return DemoTeacher()
    if not spec or not (Path(spec).is_dir() or _HUB_ID.fullmatch(spec)):
        raise DistilvlError(f"there is no teacher {spec!r}.", ACCEPTED_TEACHERS)
    from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher

    return SentenceTransformerTeacher(spec)
