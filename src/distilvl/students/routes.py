"""Where a student's towers are inside its SentenceTransformer."""

from __future__ import annotations

from typing import Any, cast

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, Transformer

MODALITIES = ("text", "image")


def is_student(model: SentenceTransformer) -> bool:
    """Whether `model` has the shape that `build_student` makes: a text and an image route, each with a tower."""
    router = model[0]
    if not isinstance(router, Router) or set(router.sub_modules) != set(MODALITIES):
        return False
    return all(isinstance(route(model, modality)[0], Transformer) for modality in MODALITIES)


def route(student: SentenceTransformer, modality: str) -> Any:
    """The modules of one route, tower first, as an `nn.Sequential`."""
    return cast(Router, student[0]).sub_modules[modality]
