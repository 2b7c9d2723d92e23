"""Any SentenceTransformer that takes images and text, and exported students, as teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality

from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.pictures import upright_rgb
from distilvl.runtime import Runtime, is_export
from distilvl.students.storage import load_widths
from distilvl.teachers.base import ACCEPTED_TEACHERS, Teacher, folder_hash, hub_commit
from distilvl.teachers.torch_teacher import DEFAULTS, RunOptions


class SentenceTransformerTeacher:
    """A SentenceTransformer from a folder or the hub; the model does its own preprocessing.

    Args:
        spec: a folder or a hub id, and so the teacher's name (of a folder: its last part).
        options: how to run it; in the number format it was saved in unless another is given.

    Raises:
        DistilvlError: it cannot be loaded, or does not take both images and text.

    Attributes:
        matryoshka_widths: of a student of ours, the widths beside `dim` to which its rows may be cut.
    """

    preprocessing = "by the SentenceTransformer"

    def __init__(self, spec: str, options: RunOptions = DEFAULTS) -> None:
        self._model = _load(spec, options.device)
        if options.dtype is not None:
            self._model.to(dtype=options.torch_dtype())
        self._batch_size = options.batch_size
        lacking = [modality for modality in ("image", "text") if not self._model.supports(modality)]
        if lacking:
            raise DistilvlError(
                f"{spec} cannot be a teacher: it takes {', '.join(map(str, self._model.modalities))}, "
                f"but no {' and no '.join(lacking)}.",
                "Name a model of images and text, such as a CLIP or SigLIP model.",
            )
        folder = Path(spec)
        self.name = folder.resolve().name if folder.is_dir() else spec
        self.revision = options.revision(folder_hash(folder) if folder.is_dir() else hub_commit(spec), default=None)
        self.matryoshka_widths = load_widths(folder)
        self.dim = self._model.get_embedding_dimension() or self.encode_texts(["width"]).shape[1]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of all modules."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """Images to float32 rows, shape (n, D)."""
        return self._encode([upright_rgb(image, f"item {k}") for k, image in enumerate(list_of_images(images))])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to float32 rows, shape (n, D)."""
        return self._encode([as_text(text) for text in list_of_texts(texts)])

    def _encode(self, items: list[Any]) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = self._model.encode(
            items,
            batch_size=self._batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=False,
        )
        return rows.astype(np.float32, copy=False)


def as_text(text: str) -> str:
    """`text`, with a space before it where `SentenceTransformer.encode` would take it for something else.

    It reads the image file or the address that a string names, so a caption such as `0.jpg` would become a picture.
    """
    return text if infer_modality(text) == "text" else f" {text}"


def _load(spec: str, device: str | None) -> SentenceTransformer:
    try:
        return SentenceTransformer(spec, device=device)
    # Loading runs through several libraries, each with errors of its own; the cause stays attached.
    except Exception as error:
        reason = " ".join(str(error).split())
        if not Path(spec).is_dir():
            raise DistilvlError(
                f"the teacher {spec!r} is no folder here and cannot be fetched from the hub: {reason.split('. ')[0]}.",
                f"{ACCEPTED_TEACHERS} A hub id needs a connection.",
            ) from error
        raise DistilvlError(
            f"the folder {spec} is not a SentenceTransformer: {type(error).__name__}: {reason[:200]}",
            "Give a folder that SentenceTransformer.save_pretrained wrote.",
        ) from error


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
