"""`distilvl.evaluate`: score a model on a split, beside its teacher when the teacher's features are known."""

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
from distilvl.evaluation.agreement import Agreement, CrossScores
from distilvl.evaluation.encode import (
    EncodedDataset,
    Model,
    Source,
    encode_any,
    encode_dataset,
    encode_texts,
    teacher_features,
    unknown_note,
)
from distilvl.evaluation.ground_truth import OF_COCO, GroundTruth, choose_truth, describe_truth
from distilvl.evaluation.intervals import Comparison, Interval, few_arrays, few_images, intervals
from distilvl.evaluation.intervals import compare as compare_ranks
from distilvl.evaluation.protocols import CocoTruth, Retrieval, TruthScore, find_protocol, retrieve, score_coco
from distilvl.evaluation.score import Precision, Score, format_score, hard_negative_accuracy, retention
from distilvl.evaluation.teacher import shares_space
from distilvl.evaluation.zero_shot import TEMPLATES, ZeroShot, class_features, read_labels, zero_shot
from distilvl.io.hashes import words_key
from distilvl.models import load_model, model_folder
from distilvl.models.loading import StoredModel
from distilvl.students.folder import run_of

WAYS = ("image_to_text", "text_to_image")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What `eval` reports."""

    student: Score  # the model's
    teacher: Score | None  # of the teacher's stored features of the same items, when known
    hard_negatives: float | None  # percent of hard negatives told apart, when the dataset has any
    skipped: int  # images left out because they are bad
    precision: tuple[Precision, Precision] | None = None  # of the model, image->text and text->image
    intervals: Mapping[str, Interval] | None = None  # as of `intervals.intervals`; none for a single image
    agreement: Agreement | None = None  # of model and teacher, when the teacher's features are known
    protocol: str | None = None  # its name, if one was asked for
    truth: GroundTruth | None = None  # what counted as right in all of this
    ground_truth: TruthScore | None = None  # on CxC or ECCV Caption, if asked for
    comparison: Comparison | None = None  # of this model (A) with another one (B), if asked for
    other: Score | None = None  # the other model's
    left_out: LeftOut = field(default_factory=LeftOut)  # of the data; with what its reader left out, unlike `skipped`
    note: str | None = None  # a warning where the gallery is small, or in a language that the model does not know
    same_negatives: int = 0  # hard negatives that equal a right caption word by word, not in `hard_negatives`
    cross: CrossScores | None = None  # of model and teacher, when both are known to be, or may be, in one space

    @property
    def retention(self) -> float | None:
        """Student RSUM over teacher RSUM; none without a teacher, or where its RSUM is 0."""
        return None if self.teacher is None else retention(self.student.rsum, self.teacher.rsum)

    def __repr__(self) -> str:
        kept = "" if self.retention is None else f"; {100 * self.retention:.1f} % of its teacher's RSUM"
        truth = "" if self.truth is None else f", ground truth {self.truth.name}"
        sizes = f"{self.student.images} images, {self.student.texts} texts"
        return f"Evaluation({format_score(self.student)}; {sizes}{truth}{kept})"

    def as_dict(self) -> dict[str, Any]:
        """The object that `eval --json` prints; what is not known has no key."""
        comparison = None
        if (found := self.comparison) is not None and self.other is not None:
            comparison = {"other": self.other.as_dict(), "difference": found.difference,
                          "interval": list(found.interval), "p_value": found.p_value}  # fmt: skip
        known: dict[str, Any] = {
            "images": self.student.images,
            "texts": self.student.texts,
            "protocol": self.protocol,
            **({} if self.truth is None else self.truth.as_dict()),
            "note": self.note,
            "median_rank": _by_way(self.student.median_rank),
            "precision": _by_way(None if self.precision is None else [asdict(one) for one in self.precision]),
            "intervals": None if self.intervals is None else _nested(self.intervals),
            "teacher": None if self.teacher is None else self.teacher.as_dict(),
            "retention": self.retention,
            **({} if self.cross is None else self.cross.as_dict()),
            "agreement": None if self.agreement is None else self.agreement.as_dict(),
            "hard_negative_accuracy": self.hard_negatives,
            "hard_negatives_left_out": self.same_negatives or None,
            **({} if self.ground_truth is None else {self.ground_truth.name: self.ground_truth.as_dict()}),
            "comparison": comparison,
            "skipped_images": self.skipped or None,
            "left_out": self.left_out.as_dict(),
        }
        # With a teacher, a retention of none says that its RSUM is 0.
        kept = None if self.teacher is None else "retention"
        return self.student.as_dict() | {k: value for k, value in known.items() if value is not None or k == kept}


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
    dim: int | None = None,
) -> Evaluation:
    """Image-text retrieval of `model` on one split of `data`.

    Args:
        model: a run, student or exported folder, a feature store, anything else that `load_model` takes, or one of
            these already loaded: a SentenceTransformer, a store, or anything with `encode_images` and `encode_texts`.
        data: a dataset, or what `load_dataset` takes.
        split: whose images and captions are the gallery; `all` for all splits together.
        features: a store with the teacher's features of these items; the run's own by default, if it has them.
        skip_bad: leave bad images out and count them.
        protocol: `flickr30k-1k`, `flickr8k-1k`, `coco-5k` or `coco-1k`; the split is checked against it.
        ground_truth: `pairs`: only an image's own captions are right, as in published results; `content`: equal
            captions and equal pictures are each other's right answers. By default `pairs` with a protocol and for
            benchmarks, else `content`. `cxc` or `eccv` (package eccv-caption) are scored beside that, on COCO.
        compare: another model to compare with on the same queries, as `model`.
        dim: score the first so many dimensions of the model's embeddings, as of a Matryoshka student; all by default.

    Raises:
        DistilvlError: not a model, an empty split, bad images, features that cannot be scored, a store that was
            named and lacks an item, or data that is not the protocol's or the ground truth's.
    """
    dataset = data if isinstance(data, PairDataset) else load_dataset(str(data), skip_bad=skip_bad)
    gallery = dataset.split(split)
    asked = None if protocol is None else find_protocol(protocol)
    truth = choose_truth(ground_truth, protocol, dataset)
    of_coco = CocoTruth.load(ground_truth) if ground_truth in OF_COCO else None
    source, encoded = encode_any(model, gallery, skip_bad)
    encoded.copies.require_different(encoded.dataset.name)
    whole = encoded.images.shape[1]  # D
    if dim is not None:
        encoded = encoded.narrowed(dim)
    found = encoded.retrieve(truth, asked)
    run, folder = (run_of(model), model_folder(model)) if isinstance(model, str | Path) else (None, None)
    taught = teacher_features(encoded, run, features, folder)
    cross = None
    if taught is not None and taught[0].shape[1] == whole and shares_space(run):
        cross = encoded.cross_with((taught[0][:, :dim], taught[1][:, :dim]), truth, asked)
    teacher = None if taught is None else replace(encoded, images=taught[0], texts=taught[1]).retrieve(truth, asked)
    other = None if compare is None else encode_any(compare, gallery, skip_bad)[1].retrieve(truth, asked)
    told_apart, same = (None, 0) if dim is not None else _hard_negatives(source, encoded)
    result = replace(
        _evaluation(found, protocol),
        comparison=None if other is None else compare_ranks(found.ranks, other.ranks),
        other=None if other is None else other.score,
        teacher=None if teacher is None else teacher.score,
        hard_negatives=told_apart,
        same_negatives=same,
        skipped=len(encoded.bad),
        left_out=encoded.left_out,
        agreement=encoded.agreement_with(taught),
        cross=cross,
        truth=describe_truth(encoded.dataset, encoded.copies, truth),
        ground_truth=None if of_coco is None else score_coco(of_coco, encoded.images, encoded.texts, encoded.dataset),
    )
    sure = (result.intervals or {}).get("rsum")
    notes = few_images(dataset, split, sure, scored=found.score.images), unknown_note(source, encoded.dataset.captions)
    return replace(result, note=" ".join(filter(None, notes)) or None)


def evaluate_arrays(
    image_features: npt.ArrayLike, text_features: npt.ArrayLike, text_image: npt.ArrayLike, protocol: str | None = None
) -> Evaluation:
    """The same report from features alone, without a model, a dataset or a teacher.

    The ground truth is `pairs`: arrays do not tell which captions or pictures are equal. Takes and raises what `score`
    does; also raises `DistilvlError` where the data is not the protocol's.
    """
    asked = None if protocol is None else find_protocol(protocol)
    result = _evaluation(retrieve(image_features, text_features, text_image, asked), protocol)
    note = few_arrays(result.student.images, (result.intervals or {}).get("rsum"))
    return replace(result, truth=GroundTruth(PAIRS), note=note)


def evaluate_classes(
    model: Source, labels: str | Path, *, templates: Sequence[str] = TEMPLATES, skip_bad: bool = False
) -> ZeroShot:
    """Zero-shot classification of labelled images from the names of their classes.

    `model` is as for `evaluate`, but no store; for `labels` and `templates` see `read_labels` and `class_features`.
    `DistilvlError` for what is no model, bad labels, templates or images, and features that cannot be scored.
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
    sure = intervals(found.ranks) if found.ranks.drawn.max() > 0 else None
    return Evaluation(found.score, None, None, 0, found.precision, sure, protocol=protocol)


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
    rows, own, wrong = (list(part) for part in zip(*triples, strict=True))
    return hard_negative_accuracy(encoded.images[rows], encoded.texts[own], encode_texts(source, wrong)), same
