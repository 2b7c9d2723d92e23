"""SentenceTransformers of images and text, students among them, behind the surface of a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality

from distilvl.errors import DistilvlError, one_line
from distilvl.io.hub import like_it
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.pictures import upright_rgb
from distilvl.students.folder import has_student_routes, load_dims
from distilvl.students.storage import count_parameters, is_student, load_student, max_length
from distilvl.teachers.base import ACCEPTED_TEACHERS, loading, name_and_revision
from distilvl.teachers.torch_teacher import DEFAULTS, RunOptions, weights_hash

_CONFIGS = ("modules.json", "config.json", "adapter_config.json")


class SentenceTransformerTeacher:
    """A SentenceTransformer of both images and text; a folder, a hub id, or an open model.

    The model does its own preprocessing, and keeps the dtype it was saved in unless another is given.

    Attributes:
        is_student: whether it has the shape of our students.
        max_length: of a student of ours, the tokens of a text that it reads.
        matryoshka_dims: of a student of ours, the dimensions beside `dim` to which its embeddings may be cut.
    """

    preprocessing = "by the SentenceTransformer"

    def __init__(self, source: str | SentenceTransformer, options: RunOptions = DEFAULTS) -> None:
        self.model = _load(source, options.device) if isinstance(source, str) else source
        self._batch_size = options.batch_size
        self.is_student, self.num_parameters = is_student(self.model), count_parameters(self.model)
        if options.dtype is not None:
            self.model.to(dtype=options.torch_dtype())
        lacking = [modality for modality in ("image", "text") if not self.model.supports(modality)]
        if lacking:
            it = source if isinstance(source, str) else "this SentenceTransformer"
            takes = f"it takes {', '.join(map(str, self.model.modalities))}, but no {' and no '.join(lacking)}"
            remedy = "Name a model of images and text, such as a CLIP or SigLIP model."
            raise DistilvlError(f"{it} cannot be a teacher: {takes}.", remedy)
        if isinstance(source, str):
            self.name, revision = name_and_revision(source)
            self.revision, self.matryoshka_dims = options.revision(revision, default=None), load_dims(Path(source))
        else:
            self.name, self.matryoshka_dims = "sentence-transformer", ()
            self.revision = weights_hash(self.model.state_dict())
        self.max_length = max_length(self.model) if self.is_student else None
        self.dim = self.model.get_embedding_dimension() or self.encode_texts(["dim"]).shape[1]

    def __repr__(self) -> str:
        return f"SentenceTransformerTeacher({self.name!r}, dim={self.dim}, device={str(self.model.device)!r})"

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """Images to float32 embeddings, shape (n, D)."""
        return self._encode([upright_rgb(image, f"item {k}") for k, image in enumerate(list_of_images(images))])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to float32 embeddings, shape (n, D)."""
        return self._encode([as_text(text) for text in list_of_texts(texts)])

    def _encode(self, items: list[Any]) -> npt.NDArray[Any]:
        embeddings = self.model.encode(items, batch_size=self._batch_size, show_progress_bar=False)
        return embeddings.astype(np.float32, copy=False)


def as_text(text: str) -> str:
    """`text`, with a space before it where `SentenceTransformer.encode` would take it for something else.

    It reads the image file or the address that a string names, so a caption such as `0.jpg` would become a picture.
    """
    return text if infer_modality(text) == "text" else f" {text}"


def _load(source: str, device: str | None) -> SentenceTransformer:
    if has_student_routes(Path(source)):
        # Safetensors alone, nothing asked of the hub, no bars, and pictures of any mode.
        return load_student(source, device=device)
    if Path(source).is_dir() and not any(Path(source, name).is_file() for name in _CONFIGS):
        what = f"{source} is not a student folder and is not a SentenceTransformer"
        remedy = "Give a run, a student's folder, or a folder that SentenceTransformer.save_pretrained wrote."
        raise DistilvlError(f"{what}: it has neither modules.json nor config.json.", remedy)
    remedy = "Give a folder that SentenceTransformer.save_pretrained wrote."
    with loading(f"the folder {source} is not a SentenceTransformer", remedy):
        try:
            return SentenceTransformer(source, device=device)
        except Exception as error:  # each of the libraries has errors of its own
            if Path(source).is_dir():
                raise
            reason = one_line(error).split(". ")[0]
            what = f"the teacher {source!r} is no folder here and cannot be fetched from the hub: {reason}."
            remedy = f"{like_it(source)} {ACCEPTED_TEACHERS} A hub id needs a connection.".strip()
            raise DistilvlError(what, remedy) from error
