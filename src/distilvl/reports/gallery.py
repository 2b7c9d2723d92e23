"""What the report measures itself: the features of students and teacher on one gallery, and their ranks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import Agreement
from distilvl.evaluation.encode import EncodedDataset, encode_dataset
from distilvl.evaluation.ground_truth import GroundTruth, Groups, RightAnswers, describe_truth
from distilvl.evaluation.intervals import few_images
from distilvl.evaluation.score import Ranks, Score, rank_gallery, score_ranks
from distilvl.evaluation.sources import Taught, agreement_with_teacher, teacher_features
from distilvl.reports.run import Run, teacher_name
from distilvl.students import load_student

logger = logging.getLogger("distilvl")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


_PLAIN = GroundTruth(PAIRS)


@dataclass(frozen=True)
class View:
    """A gallery as one model sees it.

    Attributes:
        name: the run's, or `teacher`, or whose teacher where there are several.
        images: unit rows (n, D).
        texts: unit rows (m, D).
        ranks: of each image's best-placed caption and of each caption's image.
        score: R@K and RSUM.
    """

    name: str
    images: Floats
    texts: Floats
    ranks: Ranks
    score: Score


@dataclass(frozen=True)
class Gallery:
    """Items and the views of them; the first student's run is the report's subject.

    Attributes:
        dataset: the records that could be decoded.
        split: its name.
        total: images of the whole split.
        owner: (m,) row of each caption's image.
        teachers: of each student its own, from its run's stored features; the same view where runs share a teacher,
            none where a run has no features, or they lack an item.
        students: one view for each run that has a finished student.
        agreements: each student's with its own teacher, as `eval` measures it; only where that is known.
        left_out: what was passed over of its data.
        groups: the copies that are right answers; none where only pairs are.
        truth: which ground truth that is.
        note: a warning where few images are scored.
    """

    dataset: PairDataset
    split: str
    total: int
    owner: Integers
    teachers: tuple[View | None, ...]
    students: tuple[View, ...]
    agreements: tuple[tuple[str, Agreement], ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    groups: Groups | None = None
    truth: GroundTruth = _PLAIN
    note: str | None = None

    @property
    def teacher(self) -> View | None:
        """The first student's own."""
        return self.teachers[0] if self.teachers else None

    def teachers_of(self, most: int | None = None) -> list[View]:
        """The teachers of the first `most` students, each once, in the order of the students."""
        found: list[View] = []
        for view in self.teachers[:most]:
            if view is not None and not any(view is one for one in found):
                found.append(view)
        return found

    @property
    def label(self) -> str:
        """`flickr8k/val, 1000 images, 5000 captions`."""
        part = "" if len(self.dataset) == self.total else f"the first {len(self.dataset)} of "
        return f"{self.dataset.name}, {part}{self.total} images, {len(self.owner)} captions"

    def right_images(self, text: int) -> set[int]:
        """Rows of the images that are right for a caption."""
        return set(self._answers(texts=True).of_queries(np.array([text]))[0].tolist())

    def right_texts(self, image: int) -> set[int]:
        """Rows of the captions that are right for an image."""
        return set(self._answers(texts=False).of_queries(np.array([image]))[0].tolist())

    def _answers(self, *, texts: bool) -> RightAnswers:
        groups = self.groups or Groups.alone(len(self.dataset), len(self.owner))
        every = np.arange(len(self.owner))
        if texts:
            return RightAnswers.of(groups.text, groups.image, every, self.owner)
        return RightAnswers.of(groups.image, groups.text, self.owner, every)


def build_gallery(
    runs: Sequence[Run], *, data: str | None, split: str, items: int | None, skip_bad: bool = False
) -> tuple[Gallery | None, str]:
    """Encode the gallery with every finished student.

    Args:
        runs: whose students; unfinished runs are passed over.
        data: a dataset; the first run's own when none.
        split: of it.
        items: use only so many images from the beginning of the split.
        skip_bad: leave bad images out.

    Returns:
        The gallery, or none and the reason, where the run's own data are not here or no student is finished.

    Raises:
        DistilvlError: data or split that the user named and that cannot be read.
    """
    finished = [run for run in runs if run.has_student]
    if not finished:
        return None, "No run has a finished student yet, so nothing can be retrieved or drawn."
    source = data or finished[0].config.inputs.scored_data
    try:
        dataset = load_dataset(str(source), skip_bad=skip_bad)
        whole = dataset.split(split)
    except DistilvlError as error:
        if data is not None:
            raise
        return None, f"The run's data cannot be read here: {error}"
    chosen = whole.only(whole.records[:items]) if items else whole
    encoded = [encode_dataset(load_student(run.folder.student), chosen, skip_bad=skip_bad) for run in finished]
    first = encoded[0]
    owner = np.asarray(first.dataset.caption_image, dtype=np.int64)
    groups = first.groups
    taught = [_taught(run, one) for run, one in zip(finished, encoded, strict=True)]
    students = tuple(
        _view(run.name, one.images, one.texts, owner, groups) for run, one in zip(finished, encoded, strict=True)
    )
    truth = describe_truth(first.dataset, first.copies)
    cut = f"Without --items, all {len(whole):,} are." if len(chosen) < len(whole) else None
    note = few_images(dataset, split, remedy=cut, scored=len(first.dataset))
    agreements = tuple(
        (run.name, found)
        for run, one, its in zip(finished, encoded, taught, strict=True)
        if (found := agreement_with_teacher(one, its)) is not None
    )
    return Gallery(
        first.dataset, split, len(whole), owner, _teachers(finished, taught, owner, groups), students, agreements,
        first.left_out, groups, truth, note,
    ), ""  # fmt: skip


def _view(
    name: str, images: npt.NDArray[np.float32], texts: npt.NDArray[np.float32], owner: Integers, groups: Groups | None
) -> View:
    ranks = rank_gallery(images, texts, owner, groups)
    return View(name, _unit(images), _unit(texts), ranks, score_ranks(ranks))


def _unit(rows: npt.NDArray[np.float32]) -> Floats:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True))


def _taught(run: Run, encoded: EncodedDataset) -> Taught | None:
    """What the run's own teacher has of these items, where its store is here."""
    try:
        return teacher_features(encoded, run.folder.path)
    except DistilvlError as error:
        logger.info("no teacher beside %s: %s", run.name, error)
        return None


def _teachers(
    runs: Sequence[Run], taught: Sequence[Taught | None], owner: Integers, groups: Groups | None
) -> tuple[View | None, ...]:
    """Each run's own teacher; runs whose teachers have the same features share one view."""
    shared: list[list[int]] = []
    for row, one in enumerate(taught):
        if one is None:
            continue
        same = next((rows for rows in shared if _equal(taught[rows[0]], one)), None)
        if same is None:
            shared.append([row])
        else:
            same.append(row)
    views: list[View | None] = [None] * len(runs)
    for rows in shared:
        images, texts = taught[rows[0]] or (None, None)
        name = teacher_name([runs[row].name for row in rows], alone=len(shared) == 1)
        view = _view(name, np.asarray(images, np.float32), np.asarray(texts, np.float32), owner, groups)
        for row in rows:
            views[row] = view
    return tuple(views)


def _equal(a: Taught | None, b: Taught) -> bool:
    return a is not None and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
