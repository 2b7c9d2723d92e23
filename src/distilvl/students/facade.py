"""`distilvl.build_student`: a student from a preset's name, for people who write their own loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from distilvl.io.inputs import list_of_texts
from distilvl.recipes import load_config
from distilvl.students.build import build_student as build_from_config
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.trial import try_gradients, try_student


def build_student(
    student: str | Path, width: int, *, captions: Sequence[str] = (), overrides: Sequence[str] = ()
) -> SentenceTransformer:
    """A student that is not trained yet.

    Args:
        student: preset (`paper`, `small`, `tiny`, `demo`), YAML file, or the folder of a finished student.
        width: D, width of the shared space.
        captions: from which a preset with a new text tower (`demo`) learns its vocabulary.
        overrides: `image.layers=6` and the like, keys of the student section.

    Raises:
        DistilvlError: unknown preset or key, or a tower that cannot be loaded or trained.
        NotAListError: one text as captions or overrides.
    """
    prefixed = [f"student.{item}" for item in list_of_texts(overrides)]
    config = load_config("paper", student=str(student), overrides=prefixed)
    model = build_from_config(config.student, width, list_of_texts(captions))
    encoder = DualEncoder(model)
    try_student(encoder, reload=config.student.folder is None)
    try_gradients(encoder)
    return model
