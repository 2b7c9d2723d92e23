"""Which retrievals to show: right ones, and failures that teach something."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.records import Record
from distilvl.pictures import decode_image
from distilvl.reports.gallery import Floats, Gallery, Integers, View

Direction = Literal["text to image", "image to text"]
Kind = Literal["right", "teacher only", "both fail", "student only", "wrong"]
EXPLAINED: dict[Kind, str] = {
    "right": "The student is right; drawn at random among its right answers.",
    "teacher only": "The teacher is right and the student is not; the largest differences in rank.",
    "both fail": "Teacher and student give the same wrong first answer: the student learnt the teacher's mistake, "
    "or the answer is right and the data do not say so.",
    "student only": "The student is right and the teacher is not.",
    "wrong": "The student is wrong; the right answer is the furthest down the list.",
}
THUMBNAIL, SHOWN = 160, 4


@dataclass(frozen=True)
class Picture:
    """A thumbnail: a `data:` URI and its size in pixels."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Answer:
    """An item that the student gave as an answer, with the cosine to the query."""

    place: int
    right: bool
    similarity: float
    text: str
    picture: Picture | None


@dataclass(frozen=True)
class Example:
    """One query.

    Attributes:
        question: the caption, or the image's first caption.
        picture: the query, or the right answer to a caption.
        ranks: rank of the right answer, by model.
        answers: the student's first ones.
        teacher_answer: the teacher's first answer, as text; none without a teacher.
    """

    direction: Direction
    kind: Kind
    image_id: str
    question: str
    picture: Picture
    ranks: dict[str, int]
    answers: tuple[Answer, ...]
    teacher_answer: str | None


def choose_examples(gallery: Gallery, count: int, *, seed: int = 0) -> list[Example]:
    """About `count` examples of the first student, half of them in each direction, each about another image."""
    if not gallery.students or not count:
        return []
    used: set[int] = set()
    return [
        _example(gallery, texts, kind, row)
        for texts, wanted in ((True, count - count // 2), (False, count // 2))
        for kind, row in _queries(gallery, texts, wanted, used, seed)
    ]


def _queries(gallery: Gallery, texts: bool, wanted: int, used: set[int], seed: int) -> Iterator[tuple[Kind, int]]:
    """Rows of captions or images, by turns from each kind, ordered by kind."""
    owner = gallery.owner if texts else np.arange(len(gallery.dataset))
    left = {kind: [int(row) for row in rows] for kind, rows in _candidates(gallery, texts, seed).items()}
    chosen: dict[Kind, list[int]] = {kind: [] for kind in left}
    # Two of each of the first two kinds for one of the others.
    turns: list[Kind] = [kind for kind in left for _ in range(2 if kind in ("right", "teacher only", "wrong") else 1)]
    while wanted and any(left.values()):
        for kind in turns:
            row = next((row for row in left[kind] if int(owner[row]) not in used), None)
            left[kind] = left[kind][left[kind].index(row) + 1 :] if row is not None else []
            if row is not None and wanted:
                used.add(int(owner[row]))
                chosen[kind].append(row)
                wanted -= 1
    return ((kind, row) for kind, rows in chosen.items() for row in rows)


def _candidates(gallery: Gallery, texts: bool, seed: int) -> dict[Kind, Integers]:
    """Rows of each kind, the most telling first."""
    student, teacher, random = gallery.students[0], gallery.teacher, np.random.default_rng(seed)
    ranks = student.ranks.text if texts else student.ranks.image
    right = random.permutation(np.flatnonzero(ranks == 1))
    if teacher is None:
        return {"right": right, "wrong": _worst(ranks, ranks > 1)}
    known = teacher.ranks.text if texts else teacher.ranks.image
    first, teachers_first = (_first_answers(view, texts) for view in (student, teacher))
    if not texts:  # two captions of the same image are the same mistake
        first, teachers_first = gallery.owner[first], gallery.owner[teachers_first]
    same = (ranks > 1) & (known > 1) & (first == teachers_first)
    return {
        "right": right,
        "teacher only": _worst(ranks, (ranks > 1) & (known == 1)),
        "both fail": random.permutation(np.flatnonzero(same)),
        "student only": _worst(known, (ranks == 1) & (known > 1)),
    }


def _worst(ranks: Integers, chosen: npt.NDArray[np.bool_]) -> Integers:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(-ranks[rows], kind="stable")]


def _first_answers(view: View, texts: bool) -> Integers:
    """Column of the highest similarity for each query, a block of queries at a time."""
    queries, answers = (view.texts, view.images) if texts else (view.images, view.texts)
    blocks = [np.argmax(queries[start : start + 256] @ answers.T, axis=1) for start in range(0, len(queries), 256)]
    return np.concatenate(blocks).astype(np.int64)


def _example(gallery: Gallery, texts: bool, kind: Kind, row: int) -> Example:
    """The example of a caption, or of an image."""
    student, dataset, teacher = gallery.students[0], gallery.dataset, gallery.teacher
    right, similarity = gallery.right_rows(row, texts=texts), _similarity(student, texts, row)
    answers = []
    for place, column in enumerate(np.argsort(-similarity, kind="stable")[:SHOWN].tolist(), start=1):
        text = dataset[column].captions[0] if texts else dataset.captions[column]
        picture = thumbnail(dataset[column]) if texts else None
        answers.append(Answer(place, column in right, float(similarity[column]), text, picture))
    taught = None
    if teacher is not None:
        best = int(np.argmax(_similarity(teacher, texts, row)))
        taught = f"an image of: {dataset[best].captions[0]}" if texts else dataset.captions[best]
        taught = "the right image" if texts and best in right else taught
    models = (*([teacher] if teacher else []), *gallery.students)
    ranks = {view.name: int((view.ranks.text if texts else view.ranks.image)[row]) for view in models}
    record = dataset[int(gallery.owner[row]) if texts else row]
    question = dataset.captions[row] if texts else record.captions[0]
    direction: Direction = "text to image" if texts else "image to text"
    return Example(direction, kind, record.image_id, question, thumbnail(record), ranks, tuple(answers), taught)


def _similarity(view: View, texts: bool, row: int) -> Floats:
    """Cosines of a caption to all images, or of an image to all captions."""
    similarity: Floats = view.images @ view.texts[row] if texts else view.texts @ view.images[row]
    return similarity


def thumbnail(record: Record) -> Picture:
    """The record's image, at most 160 pixels wide and high, as an inlined JPEG without metadata."""
    image = decode_image(record.image.read(), record.image.name)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    return Picture("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), *image.size)
