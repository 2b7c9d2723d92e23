"""The widths beside its own at which a student may be used, kept with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from distilvl.errors import DistilvlError

WIDTHS_NAME = "matryoshka.json"


def save_widths(widths: Sequence[int], student: Path) -> None:
    """Keep in the student's folder at which first columns of its rows every loss was taken too."""
    (student / WIDTHS_NAME).write_text(json.dumps({"widths": list(widths)}) + "\n", encoding="utf-8")


def load_widths(student: Path) -> tuple[int, ...]:
    """The widths of a student's folder; empty where it was trained at its full width alone.

    Raises:
        DistilvlError: the file is there and holds something else.
    """
    path = student / WIDTHS_NAME
    if not path.is_file():
        return ()
    try:
        widths = json.loads(path.read_text(encoding="utf-8"))["widths"]
        if not (isinstance(widths, list) and all(type(width) is int and width > 0 for width in widths)):
            raise ValueError("it holds no list of widths")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DistilvlError(f"{path} is damaged: {error}.", "Copy the student's folder again.") from error
    return tuple(widths)
