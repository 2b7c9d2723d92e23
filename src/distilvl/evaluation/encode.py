"""Features of a dataset from any model of images and text: each image and each different caption is encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from distilvl.data.left_out import LeftOut
from distilvl.data.pixels import Decoding, only_images
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.copies import Groups
from distilvl.evaluation.ground_truth import right_copies
from distilvl.io.hashes import words_key
from distilvl.io.inputs import list_of_texts
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import bare, encode
from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher, as_text

_BATCH = 64

Model: TypeAlias = SentenceTransformer | Teacher
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
    images: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]
    bad: LeftOut

    @property
    def left_out(self) -> LeftOut:
        """All that was left out: these, and what the reader of the data passed over."""
        return self.dataset.left_out | self.bad

    def narrowed(self, width: int) -> EncodedDataset:
        """The first `width` columns of all features.

        Raises:
            DistilvlError: there are fewer, or `width` is below 1.
        """
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

    def captions_by_picture(self) -> dict[bytes, set[str]]:
        """`words_key` of all captions of each picture, those of its copies included, by content hash."""
        found: dict[bytes, set[str]] = {}
        for key, record in zip(self.image_keys, self.dataset, strict=True):
            found.setdefault(key, set()).update(map(words_key, record.captions))
        return found

    def with_features(self, images: npt.NDArray[Any], texts: npt.NDArray[Any]) -> EncodedDataset:
        """The same items with another model's features."""
        return replace(self, images=images, texts=texts)


def encode_dataset(model: Model, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """Encode all images and captions of `dataset`.

    Raises:
        BadImageError: an undecodable image, unless `skip_bad`.
        DistilvlError: a teacher that fails, or gives no embeddings of its dimension; see `encode`.
    """
    decoding = Decoding(dataset, skip_bad, "encoding images")
    blocks = []
    for block in decoding.blocks():
        names = [dataset[row].image.name for row in decoding.rows[-len(block) :]]
        blocks.append(_encode_images(model, block, names))
    images = np.concatenate(blocks)
    decoded = only_images(dataset, decoding.rows)
    return EncodedDataset(decoded, decoding.keys, images, encode_texts(model, decoded.captions), decoding.left_out)


def encode_texts(model: Model, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(m, D) float32; a text that occurs several times is encoded once.

    Raises:
        NotAListError: one text instead of a list.
        DistilvlError: a teacher that fails, or gives no embeddings of its dimension; see `encode`.
    """
    texts = list_of_texts(texts)
    unique = list(dict.fromkeys(texts))
    row = {text: k for k, text in enumerate(unique)}
    student = _student(model)
    if student is not None:
        features = _encode(student, [as_text(text) for text in unique])
    else:
        parts = [unique[k : k + _BATCH] for k in range(0, len(unique), _BATCH)]
        blocks = [encode(bare(cast(Teacher, model)), "text", part, part) for part in parts]
        features = np.concatenate([np.asarray(block, dtype=np.float32) for block in blocks])
    return features[[row[text] for text in texts]]


def _student(model: Model) -> SentenceTransformer | None:
    """What encodes all texts in one call, and so puts those of like length into one batch: a SentenceTransformer."""
    if not isinstance(model, Teacher):
        return model
    inner = bare(model)
    return inner.model if isinstance(inner, SentenceTransformerTeacher) and inner.is_student else None


def _encode_images(model: Model, images: list[Any], names: list[str]) -> npt.NDArray[np.float32]:
    student = _student(model)
    if student is not None:
        return _encode(student, images)
    return np.asarray(encode(bare(cast(Teacher, model)), "image", images, names), dtype=np.float32)


def _encode(model: SentenceTransformer, items: list[Any]) -> npt.NDArray[np.float32]:
    features = model.encode(items, batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(features, dtype=np.float32)
