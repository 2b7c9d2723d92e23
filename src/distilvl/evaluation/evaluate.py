"""`distilvl.evaluate`: score a model on a split, beside its teacher when the teacher's features are known."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sentence_transformers import SentenceTransformer

from distilvl.data import load_dataset
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.encode import EncodedDataset, encode_dataset, encode_texts
from distilvl.evaluation.score import Score, hard_negative_accuracy, score
from distilvl.features import FeatureStore, text_key
from distilvl.students.storage import load_student

logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class Evaluation:
    """What `eval` reports.

    Attributes:
        student: the model's score.
        teacher: the score of the teacher's stored features of the same items, when known.
        hard_negatives: percent of hard negatives told apart, when the dataset has any.
        skipped: images left out because they are bad.
    """

    student: Score
    teacher: Score | None
    hard_negatives: float | None
    skipped: int

    @property
    def retention(self) -> float | None:
        """Student RSUM over teacher RSUM."""
        return None if self.teacher is None else self.student.rsum / self.teacher.rsum

    def as_dict(self) -> dict[str, Any]:
        """The object that `eval --json` prints."""
        out = self.student.as_dict()
        out.update(images=self.student.images, texts=self.student.texts)
        if self.teacher is not None:
            out.update(teacher=self.teacher.as_dict(), retention=self.retention)
        if self.hard_negatives is not None:
            out["hard_negative_accuracy"] = self.hard_negatives
        if self.skipped:
            out["skipped_images"] = self.skipped
        return out


def evaluate(
    model: str | Path | SentenceTransformer,
    data: str | Path | PairDataset,
    *,
    split: str = "test",
    features: str | Path | None = None,
    skip_bad: bool = False,
) -> Evaluation:
    """Image-text retrieval of `model` on one split of `data`.

    Args:
        model: a run folder, a student folder, or a model already loaded.
        data: a dataset, or what `load_dataset` takes.
        split: whose images and captions are the gallery.
        features: a store with the teacher's features of these items; the run's own by default, if it has them.
        skip_bad: leave bad images out and count them.

    Raises:
        DistilvlError: not a student, an empty split, bad images, features that cannot be scored, or a store that was
            named and lacks an item.
    """
    dataset = data if isinstance(data, PairDataset) else load_dataset(str(data), skip_bad=skip_bad)
    gallery = dataset.split(split)
    if isinstance(model, SentenceTransformer):
        loaded, run = model, None
    else:
        folder, run = _student_folder(Path(model))
        loaded = load_student(folder)
    encoded = encode_dataset(loaded, gallery, skip_bad=skip_bad)
    owner = np.asarray(encoded.dataset.caption_image)
    return Evaluation(
        student=score(encoded.images, encoded.texts, owner),
        teacher=_teacher_score(encoded, owner, features, run),
        hard_negatives=_hard_negatives(loaded, encoded),
        skipped=len(encoded.skipped),
    )


def _student_folder(path: Path) -> tuple[Path, Path | None]:
    """The student's folder and the run it belongs to, from either of them."""
    if (path / "config.yaml").is_file() and not (path / "modules.json").is_file():
        if not (path / "student").is_dir():
            raise DistilvlError(
                f"run {path} has no finished student yet.",
                "Run its `distilvl train` command again to finish it.",
            )
        return path / "student", path
    return path, path.parent if (path.parent / "config.yaml").is_file() else None


def _teacher_score(encoded: EncodedDataset, owner: Any, features: str | Path | None, run: Path | None) -> Score | None:
    store_path = Path(features) if features is not None else _store_of_run(run)
    if store_path is None:
        return None
    store = FeatureStore.open(store_path)
    captions = encoded.dataset.captions
    text_keys = [text_key(caption) for caption in captions]
    if features is None and (store.missing("image", encoded.image_keys) or store.missing("text", text_keys)):
        logger.info("the run's store %s lacks features of this split: no teacher score", store_path)
        return None
    names = [record.image.name for record in encoded.dataset]
    images = store.images(encoded.image_keys, names=names)
    texts = store.texts(text_keys, names=captions)
    return score(np.asarray(images, np.float32), np.asarray(texts, np.float32), owner)


def _store_of_run(run: Path | None) -> Path | None:
    if run is None:
        return None
    inputs = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("inputs", {})
    path = Path(inputs["features"]) if inputs.get("features") else run / "features"
    return path if path.is_dir() else None


def _hard_negatives(model: SentenceTransformer, encoded: EncodedDataset) -> float | None:
    """Accuracy over all (image, caption, hard negative) triples; captions and negatives are paired in order."""
    rows: list[int] = []
    true_rows: list[int] = []
    wrong: list[str] = []
    first = 0
    for row, record in enumerate(encoded.dataset):
        for k, negative in enumerate(record.hard_negatives[: len(record.captions)]):
            rows.append(row)
            true_rows.append(first + k)
            wrong.append(negative)
        first += len(record.captions)
    if not wrong:
        return None
    return hard_negative_accuracy(encoded.images[rows], encoded.texts[true_rows], encode_texts(model, wrong))
