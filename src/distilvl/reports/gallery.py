"""What the report measures itself: embeddings of students and teachers on one gallery, their ranks and their spaces."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data import load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import Agreement, CrossScores
from distilvl.evaluation.encode import EncodedDataset, Taught, encode_dataset, teacher_features
from distilvl.evaluation.ground_truth import GroundTruth, Groups, RightAnswers, describe_truth
from distilvl.evaluation.intervals import few_images
from distilvl.evaluation.score import Ranks, Score, rank_gallery, score_ranks
from distilvl.evaluation.teacher import in_teacher_space
from distilvl.experiments.figure2 import Points, checked_space, common_reach, project_space, space_numbers
from distilvl.reports.run import Run, teacher_name
from distilvl.students import load_student

logger = logging.getLogger("distilvl")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
MOST_STUDENTS = 3


@dataclass(frozen=True)
class View:
    """A gallery as one model sees it: L2-normalised embeddings (n, D) and (m, D), and what follows from them.

    `ranks` are of each image's best-placed caption and of each caption's image.
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
        dataset: the records that could be decoded; `total` are images of the whole split.
        owner: (m,) row of each caption's image.
        teachers: of each student its own, from its run's stored features; the same view where runs share a teacher,
            none where a run has no features, or they lack an item.
        students: one view for each run that has a finished student.
        agreements: each student's with its own teacher, as `eval` measures it; only where that is known.
        crosses: each student's cross scores with its own teacher; none where they share no space.
        groups: the copies that are right answers; none where only pairs are.
        note: a warning where few images are scored.
    """

    dataset: PairDataset
    total: int
    owner: Integers
    teachers: tuple[View | None, ...]
    students: tuple[View, ...]
    agreements: tuple[tuple[str, Agreement], ...] = ()
    crosses: tuple[CrossScores | None, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    groups: Groups | None = None
    truth: GroundTruth = field(default=GroundTruth(PAIRS))
    note: str | None = None

    @property
    def teacher(self) -> View | None:
        """The first student's own."""
        return self.teachers[0] if self.teachers else None

    def teachers_of(self, most: int | None = None) -> list[View]:
        """The teachers of the first `most` students, each once, in the order of the students."""
        return list({id(view): view for view in self.teachers[:most] if view is not None}.values())

    @property
    def label(self) -> str:
        """`flickr8k/val, 1000 images, 5000 captions`."""
        part = "" if len(self.dataset) == self.total else f"the first {len(self.dataset)} of "
        return f"{self.dataset.name}, {part}{self.total} images, {len(self.owner)} captions"

    def right_rows(self, query: int, *, texts: bool) -> set[int]:
        """Rows of the images that are right for a caption (`texts`), or of the captions that are right for an image."""
        groups = self.groups or Groups.alone(len(self.dataset), len(self.owner))
        sides = [(groups.image, self.owner), (groups.text, np.arange(len(self.owner)))]
        (asked, queries), (given, items) = reversed(sides) if texts else sides
        return set(RightAnswers.of(asked, given, queries, items).of_queries(np.array([query]))[0].tolist())


def build_gallery(
    runs: Sequence[Run], *, data: str | None, split: str, items: int | None, skip_bad: bool = False
) -> tuple[Gallery | None, str]:
    """Encode the gallery with every finished student; the arguments are those of `build_report`.

    None and the reason, where the run's own data are not here or no student is finished; `DistilvlError`, where data or
    split were named and cannot be read.
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
    first, names = encoded[0], [run.name for run in finished]
    owner = np.asarray(first.dataset.caption_image, dtype=np.int64)
    taught = [_taught(run, one) for run, one in zip(finished, encoded, strict=True)]
    agreements = [one.agreement_with(its) for one, its in zip(encoded, taught, strict=True)]
    students = [_view(name, (one.images, one.texts), owner, first.groups)
                for name, one in zip(names, encoded, strict=True)]  # fmt: skip
    cut = f"Without --items, all {len(whole):,} are." if len(chosen) < len(whole) else None
    teachers = _teachers(names, taught, owner, first.groups)
    return Gallery(
        first.dataset, len(whole), owner, teachers, tuple(students),
        agreements=tuple((name, one) for name, one in zip(names, agreements, strict=True) if one is not None),
        crosses=tuple(_crossed(*each) for each in zip(finished, encoded, taught, strict=True)),
        left_out=first.left_out, groups=first.groups, truth=describe_truth(first.dataset, first.copies),
        note=few_images(dataset, split, remedy=cut, scored=len(first.dataset)),
    ), ""  # fmt: skip


def _view(name: str, rows: Taught, owner: Integers, groups: Groups | None) -> View:
    images, texts = (np.asarray(side, np.float32) for side in rows)
    ranks = rank_gallery(images, texts, owner, groups)
    wide = (side.astype(np.float64) for side in (images, texts))
    normalised = [np.asarray(side / np.linalg.norm(side, axis=1, keepdims=True)) for side in wide]
    return View(name, normalised[0], normalised[1], ranks, score_ranks(ranks))


def _taught(run: Run, encoded: EncodedDataset) -> Taught | None:
    """What the run's own teacher has of these items, where its store is here."""
    try:
        return teacher_features(encoded, run.folder.path)
    except DistilvlError as error:
        logger.info("no teacher beside %s: %s", run.name, error)
        return None


def _crossed(run: Run, encoded: EncodedDataset, taught: Taught | None) -> CrossScores | None:
    if taught is None or not in_teacher_space(run.config):
        return None
    return encoded.cross_with(taught, encoded.dataset.ground_truth)


def _teachers(
    names: Sequence[str], taught: Sequence[Taught | None], owner: Integers, groups: Groups | None
) -> tuple[View | None, ...]:
    """Each run's own teacher; runs whose teachers have the same features share one view."""
    shared: list[tuple[Taught, list[int]]] = []
    for row, one in enumerate(taught):
        same = [rows for known, rows in shared if one is not None and all(map(np.array_equal, known, one))]
        if same:
            same[0].append(row)
        elif one is not None:
            shared.append((one, [row]))
    views: dict[int, View] = {}
    for features, rows in shared:
        name = teacher_name([names[row] for row in rows], alone=len(shared) == 1)
        views |= dict.fromkeys(rows, _view(name, features, owner, groups))
    return tuple(views.get(row) for row in range(len(names)))


@dataclass(frozen=True)
class Space:
    """One space on its own three principal components.

    `numbers` are those of `SpaceNumbers`; `reach` is half the side of the box that holds the points of all spaces.
    """

    name: str
    points: Points
    numbers: dict[str, Any]
    reach: float

    @property
    def text(self) -> str:
        """What the pictures show, for those who cannot see them."""
        n, held = self.numbers, 100 * sum(self.numbers["explained_variance"])
        return (
            f"{self.name}: {n['pairs_drawn']} images and as many captions on three principal components, which hold "
            f"{held:.0f} % of their variance. Modality gap {n['modality_gap']:.2f}; mean cosine of matching pairs "
            f"{n['matching_cosine']:.2f}, of others {n['other_cosine']:.2f}."
        )

    def coordinates(self) -> dict[str, Any]:
        """For the viewer: coordinates in [-1, 1], three decimals."""
        means = np.stack([self.points.image_mean, self.points.text_mean])
        groups = {"images": self.points.images, "texts": self.points.texts, "means": means}
        return {name: np.round(rows / self.reach, 3).tolist() for name, rows in groups.items()}


def build_spaces(gallery: Gallery) -> list[Space]:
    """The spaces of the first three students, after their own teachers'; none where there is too little to project."""
    views = (*gallery.teachers_of(MOST_STUDENTS), *gallery.students[:MOST_STUDENTS])
    if len(gallery.dataset) < 2 or any(view.images.shape[1] < 3 for view in views):
        return []
    projected = []
    for view in views:
        rows = checked_space(view.name, (view.images, view.texts, gallery.owner))
        points = project_space(*rows, seed=0)
        projected.append((view.name, points, asdict(space_numbers(*rows, points))))
    reach = common_reach(points for _, points, _ in projected)
    return [Space(name, points, numbers, reach) for name, points, numbers in projected]
