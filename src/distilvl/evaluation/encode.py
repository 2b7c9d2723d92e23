"""Features of a dataset from any model of images and text: each image and each different caption is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer

from distilvl.data.left_out import LeftOut
from distilvl.data.pixels import Decoding, only_images
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.ground_truth import Groups, right_copies
from distilvl.io.inputs import list_of_texts
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import Modality, bare, encode
from distilvl.teachers.outputs import embeddings_of
from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher, as_text

_BATCH = 64


@runtime_checkable
class ImageTextEncoder(Protocol):
    """The two calls that are enough to be scored: a `Teacher`, an exported student's `Runtime`, or anything else."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to embeddings, shape (n, D)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to embeddings, shape (n, D)."""


Model: TypeAlias = SentenceTransformer | ImageTextEncoder
"""What can be scored: anything with `encode` for both kinds of items, or with `encode_images` and `encode_texts`."""


@dataclass(frozen=True)
class EncodedDataset:
    """A dataset's features.

    Attributes:
        dataset: the records that could be decoded.
        image_keys: content hash of each of the n images.
        images: (n, D) float32.
        texts: (m, D) float32, captions in the dataset's order.
        bad: images that could not be read or decoded.
    """

    dataset: PairDataset
    image_keys: list[bytes]
    images: npt.NDArray[Any]
    texts: npt.NDArray[Any]
    bad: LeftOut

    @property
    def left_out(self) -> LeftOut:
        """All that was left out: these, and what the reader of the data left out."""
        return self.dataset.left_out | self.bad

    def narrowed(self, width: int) -> EncodedDataset:
        """The first `width` dimensions of all features; `DistilvlError` where there are fewer, or for none."""
        columns = self.images.shape[1]
        if not 1 <= width <= columns:
            raise DistilvlError(f"the features have {columns} columns, not {width}.", f"Choose 1 to {columns}.")
        return replace(self, images=self.images[:, :width], texts=self.texts[:, :width])

    @cached_property
    def copies(self) -> Groups:
        """Which pictures and which captions are equal."""
        return Groups.by_content(self.image_keys, self.dataset.captions)

    @property
    def groups(self) -> Groups | None:
        """The copies that are right answers, by the dataset's own ground truth."""
        return right_copies(self.copies, self.dataset.ground_truth)


def encode_dataset(model: Model, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """Encode all images and captions of `dataset`.

    Raises:
        BadImageError: an undecodable image, unless `skip_bad`.
        DistilvlError: a teacher that fails, or gives no embeddings of its dimension; see `encode`.
    """
    model, blocks = _named(model), []
    decoding = Decoding(dataset, skip_bad, "encoding images")
    for block in decoding.blocks():
        names = [dataset[row].image.name for row in decoding.rows[-len(block) :]]
        blocks.append(_encode(model, "image", block, names))
    images, decoded = np.concatenate(blocks), only_images(dataset, decoding.rows)
    return EncodedDataset(decoded, decoding.keys, images, encode_texts(model, decoded.captions), decoding.left_out)


def encode_texts(model: Model, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(m, D) float32; a text that occurs several times is encoded once.

    Raises:
        NotAListError: one text instead of a list.
        DistilvlError: a teacher that fails, or gives no embeddings of its dimension; see `encode`.
    """
    texts, model = list_of_texts(texts), _named(model)
    unique = list(dict.fromkeys(texts))
    row = {text: k for k, text in enumerate(unique)}
    size = len(unique) if _student(model) is not None else _BATCH  # a SentenceTransformer batches by length itself
    parts = [unique[k : k + size] for k in range(0, len(unique), size)]
    features = np.concatenate([_encode(model, "text", part, part) for part in parts])
    return features[[row[text] for text in texts]]


def _student(model: object) -> SentenceTransformer | None:
    """What encodes all texts in one call, and so puts those of like length into one batch: a SentenceTransformer."""
    if isinstance(model, SentenceTransformer):
        return model
    if not isinstance(model, Teacher):
        return None
    inner = bare(model)
    return inner.model if isinstance(inner, SentenceTransformerTeacher) and inner.is_student else None


def _encode(model: Model, modality: Modality, items: list[Any], names: list[str]) -> npt.NDArray[np.float32]:
    student = _student(model)
    if student is None:
        return np.asarray(encode(bare(cast(Teacher, model)), modality, items, names), dtype=np.float32)
    if modality == "text":
        items = [as_text(text) for text in items]
    features = student.encode(items, batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(features, dtype=np.float32)


def _named(model: Model) -> Teacher | SentenceTransformer:
    """The model with a name and a dimension, if it only has the two calls."""
    if isinstance(model, Teacher):
        return model
    return _Named(model) if isinstance(model, ImageTextEncoder) else model


class _Named:
    revision = ""

    def __init__(self, model: ImageTextEncoder) -> None:
        self.encode_images, self.encode_texts = model.encode_images, model.encode_texts
        self.name = type(model).__name__
        self.dim = embeddings_of(model.encode_texts(["a photo"]), 1).shape[1]
