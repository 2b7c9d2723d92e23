"""`distilvl.evaluate`: score a model on a split, beside its teacher when the teacher's features are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import Agreement
from distilvl.evaluation.embeddings import checked_embeddings
from distilvl.evaluation.encode import (
    EncodedDataset,
    ImageTextEncoder,
    Model,
    agreement_with_teacher,
    encode_dataset,
    encode_texts,
    read_store,
    teacher_features,
)
from distilvl.evaluation.ground_truth import (
    OF_COCO,
    GroundTruth,
    choose_truth,
    describe_truth,
    require_different,
    right_copies,
)
from distilvl.evaluation.intervals import Comparison, Interval, few_arrays, few_images, intervals
from distilvl.evaluation.intervals import compare as compare_ranks
from distilvl.evaluation.protocols import (
    CocoTruth,
    Protocol,
    Retrieval,
    TruthScore,
    coco_ids,
    find_protocol,
    retrieve,
    score_coco,
)
from distilvl.evaluation.score import Precision, Score, format_score, hard_negative_accuracy, retention
from distilvl.evaluation.zero_shot import TEMPLATES, ZeroShot, class_features, read_labels, zero_shot
from distilvl.features import FeatureStore
from distilvl.io.hashes import words_key
from distilvl.models import load_model
from distilvl.models.loading import StoredModel
from distilvl.students.folder import run_of
from distilvl.teachers.base import Teacher

Source = str | Path | Model | FeatureStore
WAYS = ("image_to_text", "text_to_image")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `eval` reports.

    Attributes:
        student: the model's score.
        teacher: the score of the teacher's stored features of the same items, when known.
        hard_negatives: percent of hard negatives told apart, when the dataset has any.
        skipped: images left out because they are bad.
        precision: R-Precision and mAP@R of the model, image->text and text->image.
        intervals: 95 % bootstrap intervals of the model's recalls and RSUM, by the names in `intervals.MEASURES`; none
            for a single image.
        agreement: of model and teacher, when the teacher's features are known.
        protocol: name of the protocol, if one was asked for.
        truth: what counted as right in all of this.
        ground_truth: scores on CxC or ECCV Caption, if asked for.
        comparison: of this model (A) with another one (B), if asked for.
        other: the other model's score.
        left_out: all that was left out of the data, by reason; more than `skipped` where its reader left items out.
        note: a warning where the gallery is small.
        same_negatives: hard negatives that equal a right caption word by word, and are left out of `hard_negatives`.
    """

    student: Score
    teacher: Score | None
    hard_negatives: float | None
    skipped: int
    precision: tuple[Precision, Precision] | None = None
    intervals: Mapping[str, Interval] | None = None
    agreement: Agreement | None = None
    protocol: str | None = None
    truth: GroundTruth | None = None
    ground_truth: TruthScore | None = None
    comparison: Comparison | None = None
    other: Score | None = None
    left_out: LeftOut = field(default_factory=LeftOut)
    note: str | None = None
    same_negatives: int = 0

    @property
    def retention(self) -> float | None:
        """Student RSUM over teacher RSUM; none without a teacher, or where its RSUM is 0."""
        return None if self.teacher is None else retention(self.student.rsum, self.teacher.rsum)

    def __repr__(self) -> str:
        kept = "" if self.retention is None else f"; {100 * self.retention:.1f} % of its teacher's RSUM"
        return (
            f"Evaluation({format_score(self.student)}; {self.student.images} images, {self.student.texts} texts"
            f"{'' if self.truth is None else f', ground truth {self.truth.name}'}{kept})"
        )

    def as_dict(self) -> dict[str, Any]:
        """The object that `eval --json` prints; what is not known has no key."""
        comparison = None
        if self.comparison is not None and self.other is not None:
            comparison = {"other": self.other.as_dict(), "difference": self.comparison.difference,
                          "interval": list(self.comparison.interval), "p_value": self.comparison.p_value}  # fmt: skip
        known: dict[str, Any] = {
            "images": self.student.images,
            "texts": self.student.texts,
            "protocol": self.protocol,
            **({} if self.truth is None else self.truth.as_dict()),
            "note": self.note,
            "median_rank": _by_way(self.student.median_rank),
            "precision": None if self.precision is None else _by_way([asdict(one) for one in self.precision]),
            "intervals": None if self.intervals is None else _nested(self.intervals),
            "teacher": None if self.teacher is None else self.teacher.as_dict(),
            "retention": self.retention,
            "agreement": None if self.agreement is None else self.agreement.as_dict(),
            "hard_negative_accuracy": self.hard_negatives,
            "hard_negatives_left_out": self.same_negatives or None,
            **({} if self.ground_truth is None else {self.ground_truth.name: self.ground_truth.as_dict()}),
            "comparison": comparison,
            "skipped_images": self.skipped or None,
            "left_out": self.left_out.as_dict(),
        }
        if self.teacher is None:
            del known["retention"]
        # A retention of none says that the teacher's RSUM is 0.
        known = {name: value for name, value in known.items() if value is not None or name == "retention"}
        return self.student.as_dict() | known


def _by_way(values: Sequence[Any] | None) -> dict[str, Any] | None:
    return None if values is None else dict(zip(WAYS, values, strict=True))


def _nested(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """`{"image_to_text": {"r1": [low, high], ...}, "text_to_image": {...}, "rsum": [low, high]}`."""
    ways = zip(WAYS, ("i2t", "t2i"), strict=True)
    out: dict[str, Any] = {way: {f"r{k}": list(intervals[f"{short}_r{k}"]) for k in (1, 5, 10)} for way, short in ways}
    return {**out, "rsum": list(intervals["rsum"])}


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
        model: a run folder, a student folder, an exported one, any other SentenceTransformer of images and text, a
            feature store, what `load_model` takes, or one of these already loaded: a SentenceTransformer, a store, or
            anything with `encode_images` and `encode_texts`.
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
        width: score the first so many dimensions of the model's embeddings, as of a Matryoshka student; all by default.

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
    taught = teacher_features(encoded, run_of(model) if isinstance(model, str | Path) else None, features)
    teacher = None if taught is None else _retrieved(replace(encoded, images=taught[0], texts=taught[1]), truth, asked)
    other = None if compare is None else _retrieved(_encoded(compare, gallery, skip_bad)[1], truth, asked)
    told_apart, same = (None, 0) if width is not None else _hard_negatives(source, encoded)
    result = replace(
        _evaluation(found, protocol),
        comparison=None if other is None else compare_ranks(found.ranks, other.ranks),
        other=None if other is None else other.score,
        teacher=None if teacher is None else teacher.score,
        hard_negatives=told_apart,
        same_negatives=same,
        skipped=len(encoded.bad),
        left_out=encoded.left_out,
        agreement=agreement_with_teacher(encoded, taught),
        truth=describe_truth(encoded.dataset, encoded.copies, truth),
        ground_truth=None if of_coco is None else _coco(of_coco, encoded),
    )
    return replace(result, note=few_images(dataset, split, _of_rsum(result), scored=found.score.images))


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
    result = _evaluation(retrieve(image_features, text_features, text_image, asked), protocol)
    return replace(result, truth=GroundTruth(PAIRS), note=few_arrays(result.student.images, _of_rsum(result)))


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


def _evaluation(found: Retrieval, protocol: str | None) -> Evaluation:
    """What ranks alone tell."""
    several = found.ranks.drawn.max() > 0
    return Evaluation(found.score, None, None, 0, found.precision, intervals(found.ranks) if several else None,
                      protocol=protocol)  # fmt: skip


def _of_rsum(result: Evaluation) -> Interval | None:
    return None if result.intervals is None else result.intervals["rsum"]


def _opened(model: Source) -> Model:
    """What `load_model` makes of it; an object with no more than the two calls stays as it is."""
    if isinstance(model, ImageTextEncoder) and not isinstance(model, Teacher):
        return model
    return load_model(model, stored=True)


def _encoded(model: Source, gallery: PairDataset, skip_bad: bool) -> tuple[Model, EncodedDataset]:
    source = _opened(model)
    if isinstance(source, StoredModel):
        return source, read_store(source.store, gallery, skip_bad=skip_bad)
    return source, encode_dataset(source, gallery, skip_bad=skip_bad)


def _retrieved(encoded: EncodedDataset, truth: str, protocol: Protocol | None) -> Retrieval:
    groups = right_copies(encoded.copies, truth)
    return retrieve(encoded.images, encoded.texts, np.asarray(encoded.dataset.caption_image), protocol, groups)


def _coco(truth: CocoTruth, encoded: EncodedDataset) -> TruthScore:
    images = checked_embeddings(encoded.images, "image features")
    return score_coco(truth, images, checked_embeddings(encoded.texts, "text features"), *coco_ids(encoded.dataset))


def _hard_negatives(source: Model, encoded: EncodedDataset) -> tuple[float | None, int]:
    """Accuracy over all (image, caption, hard negative) triples, and how many equal a right caption: left out."""
    right: dict[bytes, set[str]] = {}
    for key, record in zip(encoded.image_keys, encoded.dataset, strict=True):
        right.setdefault(key, set()).update(map(words_key, record.captions))
    triples: list[tuple[int, int, str]] = []
    first = same = 0
    for row, record in enumerate(encoded.dataset):
        for k, negative in enumerate(record.hard_negatives[: len(record.captions)]):
            if words_key(negative) in right[encoded.image_keys[row]]:
                same += 1
            else:
                triples.append((row, first + k, negative))
        first += len(record.captions)
    if not triples or isinstance(source, StoredModel):  # a store cannot encode what nobody stored
        return None, same
    rows, true_rows, wrong = (list(part) for part in zip(*triples, strict=True))
    accuracy = hard_negative_accuracy(encoded.images[rows], encoded.texts[true_rows], encode_texts(source, wrong))
    return accuracy, same
