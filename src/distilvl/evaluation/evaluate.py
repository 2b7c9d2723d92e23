"""`distilvl.evaluate`: score a model on a split, beside its teacher when the teacher's features are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.data.records import PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.encode import EncodedDataset, Model, encode_dataset, encode_texts
from distilvl.evaluation.ground_truth import (
    OF_COCO,
    CocoTruth,
    GroundTruth,
    TruthScore,
    choose_truth,
    coco_ids,
    describe_truth,
    require_different,
    right_copies,
    score_coco,
)
from distilvl.evaluation.intervals import compare as compare_ranks
from distilvl.evaluation.intervals import intervals
from distilvl.evaluation.protocols import Protocol, Retrieval, find_protocol, retrieve
from distilvl.evaluation.results import Evaluation, few_arrays, few_images
from distilvl.evaluation.rows import checked_rows
from distilvl.evaluation.score import hard_negative_accuracy
from distilvl.evaluation.sources import agreement_with_teacher, read_store, teacher_features
from distilvl.evaluation.zero_shot import TEMPLATES, ZeroShot, class_features, read_labels, zero_shot
from distilvl.features import FeatureStore
from distilvl.io.hashes import words_key
from distilvl.models import load_model
from distilvl.models.loading import StoredModel
from distilvl.students.folder import run_of

__all__ = ["Evaluation", "evaluate", "evaluate_arrays", "evaluate_classes"]

Source = str | Path | Model | FeatureStore


def evaluate(
    model: Source,
    data: str | Path | PairDataset,
    *,
    split: str = "test",
    features: str | Path | None = None,
    skip_bad: bool = False,
    protocol: str | None = None,
    ground_truth: str | None = None,
    compare: Source | None = None,
    width: int | None = None,
) -> Evaluation:
    """Image-text retrieval of `model` on one split of `data`.

    Args:
        model: what `load_model` takes, such as a run folder; or a feature store.
        data: a dataset, or what `load_dataset` takes.
        split: whose images and captions are the gallery; `all` for all splits together.
        features: a store with the teacher's features of these items; the run's own by default, if it has them.
        skip_bad: leave bad images out and count them.
        protocol: `flickr30k-1k`, `flickr8k-1k`, `coco-5k` or `coco-1k`; the split is checked against it.
        ground_truth: `pairs`: only an image's own captions are right, as in published results; `content`: equal
            captions and equal pictures are each other's right answers. By default `pairs` with a protocol and for
            benchmarks, `content` for all other data. `cxc` or `eccv`, for COCO's test split, are scored beside that;
            they need the package eccv-caption.
        compare: another model to compare with on the same queries, as `model`.
        width: score the first so many columns of the model's features, as of a Matryoshka student; all by default.

    Raises:
        DistilvlError: not a model, an empty split, bad images, features that cannot be scored, a store that was
            named and lacks an item, or data that is not the protocol's or the ground truth's.
    """
    dataset = data if isinstance(data, PairDataset) else load_dataset(str(data), skip_bad=skip_bad)
    gallery = dataset.split(split)
    asked = None if protocol is None else find_protocol(protocol)
    truth = choose_truth(ground_truth, protocol, dataset)
    of_coco = CocoTruth.load(ground_truth) if ground_truth in OF_COCO else None
    source, encoded = _encoded(model, gallery, skip_bad)
    require_different(encoded.dataset, encoded.copies)
    if width is not None:
        encoded = encoded.narrowed(width)
    found = _retrieved(encoded, truth, asked)
    taught = teacher_features(encoded, _run_of(model), features)
    teacher = None if taught is None else _retrieved(encoded.with_features(*taught), truth, asked).score
    other = None if compare is None else _retrieved(_encoded(compare, gallery, skip_bad)[1], truth, asked)
    told_apart, same = (None, 0) if width is not None else _hard_negatives(source, encoded)
    result = _evaluation(
        found,
        other,
        teacher=teacher,
        hard_negatives=told_apart,
        same_negatives=same,
        skipped=len(encoded.bad),
        left_out=encoded.left_out,
        agreement=agreement_with_teacher(encoded, taught),
        protocol=protocol,
        truth=describe_truth(encoded.dataset, encoded.copies, truth),
        ground_truth=None if of_coco is None else _coco(of_coco, encoded),
    )
    rsum = None if result.intervals is None else result.intervals["rsum"]
    return replace(result, note=few_images(dataset, split, rsum, scored=found.score.images))


def evaluate_arrays(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike, protocol: str | None = None
) -> Evaluation:
    """The same report from features alone, without a model, a dataset or a teacher.

    The ground truth is `pairs`: arrays do not tell which captions or pictures are equal.

    Args:
        image_features, text_features, text_image: as for `score`.
        protocol: as for `evaluate`.

    Raises:
        DistilvlError: as for `score`, or the data is not the protocol's.
    """
    asked = None if protocol is None else find_protocol(protocol)
    found = retrieve(image_features, text_features, text_image, asked)
    truth = GroundTruth(PAIRS)
    result = _evaluation(found, None, teacher=None, hard_negatives=None, skipped=0, protocol=protocol, truth=truth)
    rsum = None if result.intervals is None else result.intervals["rsum"]
    return replace(result, note=few_arrays(result.student.images, rsum))


def evaluate_classes(
    model: Source, labels: str | Path, *, templates: Sequence[str] = TEMPLATES, skip_bad: bool = False
) -> ZeroShot:
    """Zero-shot classification of labelled images from the names of their classes.

    Args:
        model: as for `evaluate`, but no store: class names have to be encoded.
        labels: a folder with a folder of images for each class, or a CSV with the columns `image` and `class`.
        templates: prompts with `{}` in the place of the name; a class's feature is the mean over them.
        skip_bad: leave bad images out.

    Raises:
        DistilvlError: not a model, bad labels or templates, bad images, features that cannot be scored.
    """
    source = load_model(model, stored=True)
    if isinstance(source, StoredModel):
        raise DistilvlError(f"{model} is a feature store, which cannot encode class names.", "Give a model.")
    dataset = read_labels(labels, skip_bad=skip_bad)
    names: dict[str, str] = {}  # those that are equal word by word are one class, by the first one's spelling
    for name in sorted(set(dataset.captions)):
        names.setdefault(words_key(name), name)
    classes = class_features(lambda texts: encode_texts(source, texts), list(names.values()), templates)
    encoded = encode_dataset(source, dataset, skip_bad=skip_bad)
    row = {key: k for k, key in enumerate(names)}
    found = zero_shot(encoded.images, classes, np.array([row[words_key(name)] for name in encoded.dataset.captions]))
    return replace(found, left_out=encoded.left_out)


def _evaluation(found: Retrieval, other: Retrieval | None, **known: Any) -> Evaluation:
    several = found.ranks.drawn.max() > 0
    return Evaluation(
        student=found.score,
        precision=found.precision,
        intervals=intervals(found.ranks) if several else None,
        comparison=None if other is None else compare_ranks(found.ranks, other.ranks),
        other=None if other is None else other.score,
        **known,
    )


def _retrieved(encoded: EncodedDataset, truth: str, protocol: Protocol | None) -> Retrieval:
    groups = right_copies(encoded.copies, truth)
    return retrieve(encoded.images, encoded.texts, np.asarray(encoded.dataset.caption_image), protocol, groups)


def _encoded(model: Source, gallery: PairDataset, skip_bad: bool) -> tuple[Model, EncodedDataset]:
    source = load_model(model, stored=True)
    if isinstance(source, StoredModel):
        return source, read_store(source.store, gallery, skip_bad=skip_bad)
    return source, encode_dataset(source, gallery, skip_bad=skip_bad)


def _run_of(model: Source) -> Path | None:
    return run_of(model) if isinstance(model, str | Path) else None


def _coco(truth: CocoTruth, encoded: EncodedDataset) -> TruthScore:
    images, texts = checked_rows(encoded.images, "image features"), checked_rows(encoded.texts, "text features")
    return score_coco(truth, images, texts, *coco_ids(encoded.dataset))


def _hard_negatives(source: Model, encoded: EncodedDataset) -> tuple[float | None, int]:
    """Accuracy over all (image, caption, hard negative) triples; captions and negatives are paired in order.

    A negative that equals a caption of its picture is no wrong caption; such triples are left out, and counted.
    """
    rows: list[int] = []
    true_rows: list[int] = []
    wrong: list[str] = []
    first = same = 0
    right = encoded.captions_by_picture()
    for row, record in enumerate(encoded.dataset):
        for k, negative in enumerate(record.hard_negatives[: len(record.captions)]):
            if words_key(negative) in right[encoded.image_keys[row]]:
                same += 1
                continue
            rows.append(row)
            true_rows.append(first + k)
            wrong.append(negative)
        first += len(record.captions)
    if not wrong or isinstance(source, StoredModel):  # a store cannot encode what nobody stored
        return None, same
    accuracy = hard_negative_accuracy(encoded.images[rows], encoded.texts[true_rows], encode_texts(source, wrong))
    return accuracy, same
