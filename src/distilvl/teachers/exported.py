"""A student that `distilvl export` wrote, as a teacher; needs onnxruntime and no torch."""

from __future__ import annotations

from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.runtime import Runtime, is_export
from distilvl.teachers.base import Teacher


def exported_teacher(spec: str) -> Teacher | None:
    """The exported student of `FOLDER` or `FOLDER?precision=fp32`, or None where FOLDER is something else.

    Raises:
        DistilvlError: another option, a precision that the folder lacks, a file that is missing or damaged.
    """
    folder, _, options = spec.partition("?")
    if not Path(folder).is_dir() or not is_export(folder):
        return None
    name, _, precision = options.partition("=")
    if options and name != "precision":
        raise DistilvlError(f"an exported student has no option {name!r}.", "Write FOLDER?precision=fp32, or nothing.")
    # Others decode pictures or answer requests while it encodes.
    return Runtime.load(folder, precision=precision or None, busy_wait=False)
