"""`Encoder`: a model whose embeddings are L2-normalised float32, and what an index keeps of it."""

import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import checked, who

Embeddings = npt.NDArray[np.float32]

# A hash of weights or a commit, with a dtype perhaps, says which model it is, whatever its folder is called.
_CONTENT_HASH = re.compile(r"[0-9a-f]{16,}(-[a-z0-9]+)?")


@dataclass(frozen=True)
class ModelInfo:
    """The model whose embeddings an index holds."""

    spec: str  # what `load_encoder` takes; an absolute path where it is a folder
    name: str
    revision: str
    dim: int  # D, the embedding dimension


class Encoder:
    """A model with the surface of `Teacher`, whose embeddings are L2-normalised float32.

    Args:
        spec: what `load_encoder` loads it from; empty for one that was made in Python.
        one_call_at_a_time: for models that cannot be called from several threads at once, as most cannot.

    Attributes:
        dims: the dimensions in which its embeddings may be used: the model's own, and those that a Matryoshka model
            was trained for and names in an attribute `matryoshka_dims`. Cut to any other they are worth nothing.
        max_length: tokens of a text that it reads, as far as the model says so; none: unknown.
    """

    def __init__(self, model: Teacher, spec: str = "", *, one_call_at_a_time: bool = True) -> None:
        self._model = checked(model)
        self._turn: AbstractContextManager[Any] = threading.Lock() if one_call_at_a_time else nullcontext()
        self.name, self.revision, self.dim = self._model.name, self._model.revision, self._model.dim
        self.dims = frozenset({self.dim, *getattr(model, "matryoshka_dims", ())})
        self.max_length: int | None = getattr(model, "max_length", None)
        self.spec = spec

    def __repr__(self) -> str:
        return f"Encoder({self._model!r})"

    @property
    def info(self) -> ModelInfo:
        """What an index keeps of it."""
        return ModelInfo(self.spec, self.name, self.revision, self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """RGB images to L2-normalised embeddings, (n, D); `DistilvlError` for one that is not finite, or zero."""
        with self._turn:
            return self._normalised(self._model.encode_images(images), "image")

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Texts to L2-normalised embeddings, shape (n, D); raises as `encode_images`."""
        with self._turn:
            return self._normalised(self._model.encode_texts(texts), "text")

    def _normalised(self, embeddings: npt.NDArray[Any], kind: str) -> Embeddings:
        with np.errstate(over="ignore"):
            wide = np.asarray(embeddings, dtype=np.float32)
            norms = np.linalg.norm(wide, axis=1, keepdims=True)
        # Numbers that are fine may be too large or too small for float32, or their squares.
        good = np.isfinite(norms) & (norms > 0)
        if not good.all():
            what = f"{who(self._model)} gave numbers too large or too small for float32"
            item = f"{kind} {int(np.argmin(good))} of a batch"
            raise DistilvlError(f"{what} for {item}.", "Let it give L2-normalised embeddings.")
        return np.asarray(wide / norms, dtype=np.float32)


def is_same_model(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether embeddings of both may stand in one index; a folder that was moved or renamed stays what it is."""
    same_place = one.name == other.name or _CONTENT_HASH.fullmatch(one.revision) is not None
    return same_place and (one.revision, one.dim) == (other.revision, other.dim)
