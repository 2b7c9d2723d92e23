"""Embeddings of a dataset from any model of images and text, or from a store; and a student beside its own teacher."""

from __future__ import annotations

import logging
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer

from distilvl.data.left_out import NOT_DECODED, LeftOut
from distilvl.data.pixels import Decoding, only_images
from distilvl.data.records import PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.evaluation.agreement import Agreement, CrossScores, agreement, cross_scores
from distilvl.evaluation.ground_truth import Groups, right_copies
from distilvl.evaluation.protocols import Protocol, Retrieval, retrieve
from distilvl.evaluation.score import Score
from distilvl.evaluation.teacher import run_store, turned
from distilvl.features import FeatureStore
from distilvl.io.hashes import image_key, text_key
from distilvl.io.inputs import list_of_texts
from distilvl.models import load_model
from distilvl.models.loading import StoredModel
from distilvl.students.frozen import ON_CPU
from distilvl.students.static import unknown_rate
from distilvl.students.storage import has_static_text, is_student, route
from distilvl.teachers.base import Teacher
from distilvl.teachers.checks import Modality, bare, encode
from distilvl.teachers.outputs import embeddings_of
from distilvl.teachers.sentence_transformer import SentenceTransformerTeacher, as_text

_BATCH = 64
_MOST_UNKNOWN = 0.01
_logger = logging.getLogger("distilvl")
Taught = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # a teacher's image and text features of a dataset, in its order


@runtime_checkable
class ImageTextEncoder(typing.Protocol):
    """The two calls that are enough to be scored: a `Teacher`, an exported student's `Runtime`, or anything else."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to embeddings, shape (n, D)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to embeddings, shape (n, D)."""


# What can be scored: anything with `encode` for both kinds of items, or with `encode_images` and `encode_texts`.
Model: TypeAlias = SentenceTransformer | ImageTextEncoder
Source = str | Path | Model | FeatureStore


@dataclass(frozen=True)
class EncodedDataset:
    """A dataset's features."""

    dataset: PairDataset  # the records that could be decoded
    image_keys: list[bytes]  # content hash of each of the n images
    images: npt.NDArray[Any]  # (n, D) float32
    texts: npt.NDArray[Any]  # (m, D) float32, captions in the dataset's order
    bad: LeftOut  # images that could not be read or decoded

    @property
    def left_out(self) -> LeftOut:
        """All that was left out: these, and what the reader of the data left out."""
        return self.dataset.left_out | self.bad

    def narrowed(self, dim: int) -> EncodedDataset:
        """The first `dim` dimensions of all features; `DistilvlError` where there are fewer, or for none."""
        columns = self.images.shape[1]
        if not 1 <= dim <= columns:
            raise DistilvlError(f"the embeddings have {columns} dimensions, not {dim}.", f"Choose 1 to {columns}.")
        return replace(self, images=self.images[:, :dim], texts=self.texts[:, :dim])

    @cached_property
    def copies(self) -> Groups:
        """Which pictures and which captions are equal."""
        return Groups.by_content(self.image_keys, self.dataset.captions)

    @property
    def groups(self) -> Groups | None:
        """The copies that are right answers, by the dataset's own ground truth."""
        return right_copies(self.copies, self.dataset.ground_truth)

    def retrieve(self, truth: str, protocol: Protocol | None = None) -> Retrieval:
        """All galleries of `protocol` ranked, with the ground truth `content` or `pairs`."""
        owner, groups = np.asarray(self.dataset.caption_image), right_copies(self.copies, truth)
        return retrieve(self.images, self.texts, owner, protocol, groups)

    def agreement_with(self, taught: Taught | None) -> Agreement | None:
        """On different items: of copies, which tie in all lists, the first; none where fewer than two are left."""
        images, texts = self.copies.first
        if taught is None or min(len(images), len(texts)) < 2:
            return None
        return agreement((self.images[images], self.texts[texts]), (taught[0][images], taught[1][texts]))

    def cross_with(self, taught: Taught, truth: str, protocol: Protocol | None = None) -> CrossScores | None:
        """The cross scores with a teacher whose space this is, as `retrieve`; none where the dimensions differ."""

        def scored(images: npt.NDArray[Any], texts: npt.NDArray[Any]) -> Score:
            return replace(self, images=images, texts=texts).retrieve(truth, protocol).score

        return cross_scores((self.images, self.texts), taught, scored)


def encode_any(model: Source, gallery: PairDataset, skip_bad: bool) -> tuple[Model, EncodedDataset]:
    """What `load_model` makes of `model`, and its features; an object with just the two calls stays as it is."""
    just_calls = isinstance(model, ImageTextEncoder) and not isinstance(model, Teacher)
    source = cast(Model, model) if just_calls else load_model(model, stored=True)
    if isinstance(source, StoredModel):
        return source, read_store(source.store, gallery, skip_bad=skip_bad)
    return source, encode_dataset(source, gallery, skip_bad=skip_bad)


def encode_dataset(model: Model, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """All of `dataset`; raises as `teachers.checks.encode`, and `BadImageError` for a bad image unless `skip_bad`."""
    model, blocks = _named(model), []
    decoding = Decoding(dataset, skip_bad, "encoding images")
    for block in decoding.blocks():
        names = [dataset[row].image.name for row in decoding.rows[-len(block) :]]
        blocks.append(_encode(model, "image", block, names))
    images, decoded = np.concatenate(blocks), only_images(dataset, decoding.rows)
    return EncodedDataset(decoded, decoding.keys, images, encode_texts(model, decoded.captions), decoding.left_out)


def encode_texts(model: Model, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(m, D) float32; each different text is encoded once. Raises as `encode_dataset`, and `NotAListError`."""
    texts, model = list_of_texts(texts), _named(model)
    row = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    unique = list(row)
    size = len(unique) if _student(model) is not None else _BATCH  # a SentenceTransformer batches by length itself
    parts = [unique[k : k + size] for k in range(0, len(unique), size)]
    features = np.concatenate([_encode(model, "text", part, part) for part in parts])
    return features[[row[text] for text in texts]]


def _student(model: object) -> SentenceTransformer | None:
    """What encodes all texts in one call, and so puts those of like length into one batch: a SentenceTransformer."""
    if not isinstance(model, Teacher):
        return cast(SentenceTransformer, model) if hasattr(model, "encode") else None
    inner = bare(model)
    return inner.model if isinstance(inner, SentenceTransformerTeacher) and inner.is_student else None


def unknown_note(model: Model, texts: Sequence[str]) -> str | None:
    """A warning where more than 1 % of the tokens of `texts` are unknown to a student's static text tower."""
    student = _student(model)
    if student is None or not is_student(student) or not has_static_text(student):
        return None
    share = unknown_rate(route(student, "text")[0].tokenizer, texts)
    if share <= _MOST_UNKNOWN:
        return None
    return f"{100 * share:.0f} % of the tokens of these texts are unknown to the student: another language or alphabet?"


def _encode(model: Model, modality: Modality, items: list[Any], names: list[str]) -> npt.NDArray[np.float32]:
    student = _student(model)
    if student is None:
        return np.asarray(encode(bare(cast(Teacher, model)), modality, items, names), dtype=np.float32)
    if modality == "text":
        items = [as_text(text) for text in items]
    device = getattr(student, "device", None)  # whatever has an `encode` is scored, and need not have one
    size = ON_CPU if modality == "image" and getattr(device, "type", "") == "cpu" else _BATCH
    features = student.encode(items, batch_size=size, convert_to_numpy=True, show_progress_bar=False)
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


def read_store(store: FeatureStore, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """A dataset's features as a store holds them; images are read for their content hash, but not decoded.

    `DistilvlError` where the store lacks an item, or an image cannot be read (unless `skip_bad`).
    """
    records, keys, bad = [], [], LeftOut()
    for record in dataset:
        try:
            keys.append(image_key(record.image.read()))
            records.append(record)
        except BadImageError as error:
            if not skip_bad:
                raise
            bad.add(error.reason or NOT_DECODED, record.image.name)
    bad.log(dataset.name)
    read = dataset.only(records)
    images = store.images(keys, names=[record.image.name for record in read])
    texts = store.texts([text_key(caption) for caption in read.captions], names=read.captions)
    return EncodedDataset(read, keys, images.astype(np.float32), texts.astype(np.float32), bad)


def teacher_features(
    encoded: EncodedDataset, run: Path | None, features: str | Path | None = None, student: Path | None = None
) -> Taught | None:
    """The teacher's features of the same items, in the student's basis; none where no store is known or lacks one.

    The store is `features`, which must hold all items, or else that of `run`, the student's run folder. The basis is
    that of the folder `student`, or of the run's. `DistilvlError` for a store that cannot be opened, or one that was
    named and lacks an item.
    """
    store_path = features
    if features is None and run is not None:
        store_path = run_store(run)
    if store_path is None:
        return None
    store = FeatureStore.open(store_path)
    captions = encoded.dataset.captions
    text_keys = [text_key(caption) for caption in captions]
    if features is None and (store.missing("image", encoded.image_keys) or store.missing("text", text_keys)):
        _logger.info("the run's store %s lacks features of this split: no teacher score", store_path)
        return None
    names = [record.image.name for record in encoded.dataset]
    folder = run / "student" if student is None and run is not None else student
    images = turned(store.images(encoded.image_keys, names=names), folder)
    return images, turned(store.texts(text_keys, names=captions), folder)
