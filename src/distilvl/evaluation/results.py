"""A word of warning where a split is too small for its score to say much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from distilvl.data.left_out import LeftOut
from distilvl.data.listing import split_of
from distilvl.data.records import ALL, PairDataset
from distilvl.evaluation.agreement import Agreement
from distilvl.evaluation.ground_truth import GroundTruth, TruthScore
from distilvl.evaluation.intervals import Comparison, Interval
from distilvl.evaluation.score import Precision, Score, retention

WAYS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Evaluation:
    """What `eval` reports.

    Attributes:
        student: the model's score.
        teacher: the score of the teacher's stored features of the same items, when known.
        hard_negatives: percent of hard negatives told apart, when the dataset has any.
        same_negatives: hard negatives that equal a right caption word by word, and are left out of it.
        skipped: images left out because they are bad.
        precision: R-Precision and mAP@R of the model, image->text and text->image.
        intervals: 95 % bootstrap intervals of the model's recalls and RSUM, by the names in `resampling.MEASURES`;
            none for a single image.
        agreement: of model and teacher, when the teacher's features are known.
        protocol: name of the protocol, if one was asked for.
        truth: what counted as right in all of this.
        ground_truth: scores on CxC or ECCV Caption, if asked for.
        comparison: of this model (A) with another one (B), if asked for.
        other: the other model's score.
        left_out: all that was left out of the data, by reason; more than `skipped` where the reader passed things over.
        note: a warning where the gallery is small.
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

    def as_dict(self) -> dict[str, Any]:
        """The object that `eval --json` prints."""
        out = self.student.as_dict()
        out.update(images=self.student.images, texts=self.student.texts)
        if self.protocol is not None:
            out["protocol"] = self.protocol
        if self.truth is not None:
            out.update(self.truth.as_dict())
        if self.note is not None:
            out["note"] = self.note
        if self.student.median_rank is not None:
            out["median_rank"] = dict(zip(WAYS, self.student.median_rank, strict=True))
        if self.precision is not None:
            out["precision"] = {way: asdict(one) for way, one in zip(WAYS, self.precision, strict=True)}
        if self.intervals is not None:
            out["intervals"] = _nested(self.intervals)
        if self.teacher is not None:
            out.update(teacher=self.teacher.as_dict(), retention=self.retention)
        if self.agreement is not None:
            out["agreement"] = _agreement(self.agreement)
        if self.hard_negatives is not None:
            out["hard_negative_accuracy"] = self.hard_negatives
        if self.same_negatives:
            out["hard_negatives_left_out"] = self.same_negatives
        if self.ground_truth is not None:
            out[self.ground_truth.name] = self.ground_truth.as_dict()
        if self.comparison is not None and self.other is not None:
            found = self.comparison
            out["comparison"] = {"other": self.other.as_dict(), "difference": found.difference,
                                 "interval": list(found.interval), "p_value": found.p_value}  # fmt: skip
        if self.skipped:
            out["skipped_images"] = self.skipped
        out["left_out"] = self.left_out.as_dict()
        return out


def _nested(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    """`{"image_to_text": {"r1": [low, high], ...}, "text_to_image": {...}, "rsum": [low, high]}`."""
    out: dict[str, Any] = {
        way: {f"r{k}": list(intervals[f"{short}_r{k}"]) for k in (1, 5, 10)}
        for way, short in zip(WAYS, ("i2t", "t2i"), strict=True)
    }
    return {**out, "rsum": list(intervals["rsum"])}


def _agreement(found: Agreement) -> dict[str, Any]:
    out: dict[str, Any] = {
        "overlap_at_10": dict(zip(WAYS, found.overlap, strict=True)),
        "rank_correlation": dict(zip(WAYS, found.rank_correlation, strict=True)),
        "cka": dict(zip(("image", "text"), found.cka, strict=True)),
        "modality_gap": dict(zip(("student", "teacher"), found.modality_gap, strict=True)),
    }
    if found.cosine is not None:
        out["cosine"] = dict(zip(("image", "text"), found.cosine, strict=True))
    return out


FEW = 100
"""Below so many images a recall moves by more than a percent with one image."""


def few_images(
    dataset: PairDataset,
    split: str,
    interval: tuple[float, float] | None = None,
    remedy: str | None = None,
    scored: int | None = None,
) -> str | None:
    """What to say of a score on `split`; none where at least `FEW` images are scored.

    Args:
        dataset: the whole one.
        split: of it.
        interval: 95 % interval of RSUM, if known.
        remedy: a sentence on what to do; to score all splits by default, where there are others.
        scored: how many of the split's images are, if not all of them.
    """
    images, total = len(dataset.split(split)), len(dataset)
    if (images if scored is None else scored) >= FEW:
        return None
    by_hash = ", chosen by the hash of their names" if images < total and _divided_by_hash(dataset) else ""
    if remedy is None and images < total:
        remedy = f"--split {ALL} scores all {total:,}, those that a model may have learnt from included."
    if scored is None or scored == images:
        return _said(f"{split} has only {_counted(images)}{by_hash}", interval, remedy)
    return _said(f"only {scored} of the {images:,} images of {split} {_are(scored)} scored", interval, remedy)


def few_arrays(images: int, interval: tuple[float, float] | None = None) -> str | None:
    """The same of `images` rows of features, of which nothing else is known."""
    return None if images >= FEW else _said(f"only {_counted(images)} {_are(images)} scored", interval)


def _said(what: str, interval: tuple[float, float] | None, remedy: str | None = None) -> str:
    coarse = "" if interval is None else f": its 95 % interval of RSUM is {interval[0]:.0f} to {interval[1]:.0f}"
    said = f"{what}; a score on so few is coarse{coarse}."
    return said if remedy is None else f"{said} {remedy}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _counted(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def _divided_by_hash(dataset: PairDataset) -> bool:
    """Whether its splits are those that readers give where a list has none."""
    return len(dataset.splits) > 1 and all(record.split == split_of(record.image_id) for record in dataset)
