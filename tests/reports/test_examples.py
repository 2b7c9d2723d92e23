from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from distilvl.data.records import PairDataset, Record
from distilvl.evaluation import Groups, rank_gallery, score_ranks
from distilvl.reports.examples import THUMBNAIL, choose_examples, thumbnail
from distilvl.reports.gallery import Gallery, View


@dataclass(frozen=True)
class MemoryImage:
    name: str
    size: tuple[int, int] = (320, 200)

    def read(self) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", self.size, "teal").save(buffer, "PNG")
        return buffer.getvalue()


def _view(name: str, images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> View:
    ranks = rank_gallery(images, texts, owner)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts)]
    return View(name, unit[0], unit[1], ranks, score_ranks(ranks))


def _gallery(teacher_noise: float | None, student_noise: float, n: int = 40) -> Gallery:
    random = np.random.default_rng(3)
    owner = np.repeat(np.arange(n), 2)
    images = random.normal(size=(n, 8))

    def noisy(noise: float) -> np.ndarray:
        return images[owner] + noise * random.normal(size=(2 * n, 8))

    records = tuple(Record(f"id{k}", MemoryImage(f"{k}.png"), (f"first {k}", f"second {k}"), "val") for k in range(n))
    teacher = None if teacher_noise is None else _view("teacher", images, noisy(teacher_noise), owner)
    student = _view("s", images, noisy(student_noise), owner)
    return Gallery(PairDataset("made/val", records), n, owner, (teacher,), (student,))


def test_each_kind_is_what_it_says() -> None:
    gallery = _gallery(0.8, 1.2)
    examples = choose_examples(gallery, 24)
    assert len(examples) == 24
    assert Counter(example.direction for example in examples) == {"text to image": 12, "image to text": 12}
    assert {"right", "teacher only", "student only"} <= {example.kind for example in examples}
    for example in examples:
        student, teacher = example.ranks["s"], example.ranks["teacher"]
        assert (student == 1) == (example.kind in ("right", "student only"))
        if example.kind == "teacher only":
            assert teacher == 1
        if example.kind in ("both fail", "student only"):
            assert teacher > 1
        assert [answer.place for answer in example.answers] == [1, 2, 3, 4]
        assert example.answers[0].right == (student == 1)
        similar = [answer.similarity for answer in example.answers]
        assert similar == sorted(similar, reverse=True)
    assert len({example.image_id for example in examples}) == 24


def test_copies_of_the_right_answer_are_right() -> None:
    """Images 2k and 2k + 1 are one picture with captions of their own, so either is right for all four captions."""
    plain = _gallery(None, 0.05)
    same = Groups(np.arange(40) // 2, np.arange(80))
    gallery = replace(plain, groups=same)
    for example in choose_examples(gallery, 12):
        own = int(example.image_id[2:]) // 2
        for answer in example.answers:
            shown = int(answer.text.split()[1]) // 2  # the captions say which image they are of
            assert answer.right == (shown == own)
    assert gallery.right_rows(5, texts=True) == {2, 3}
    assert gallery.right_rows(2, texts=False) == gallery.right_rows(3, texts=False) == {4, 5, 6, 7}
    assert (plain.right_rows(5, texts=True), plain.right_rows(3, texts=False)) == ({2}, {6, 7})


def test_the_worst_failures_that_the_teacher_does_not_share_come_first() -> None:
    gallery = _gallery(0.05, 2.0)
    assert gallery.teacher is not None
    failures = [e.ranks["s"] for e in choose_examples(gallery, 8) if e.kind == "teacher only" and e.direction[0] == "t"]
    assert failures[0] == gallery.students[0].ranks.text[gallery.teacher.ranks.text == 1].max()


def test_without_a_teacher_there_are_right_and_wrong_ones() -> None:
    examples = choose_examples(_gallery(None, 1.2), 12)
    assert {example.kind for example in examples} == {"right", "wrong"}
    assert all(example.teacher_answer is None for example in examples)


def test_fewer_items_than_examples() -> None:
    assert len(choose_examples(_gallery(0.5, 1.0, n=5), 12)) <= 5
    assert choose_examples(_gallery(0.5, 1.0, n=5), 0) == []


def test_the_same_gallery_gives_the_same_examples() -> None:
    assert choose_examples(_gallery(0.8, 1.2), 6) == choose_examples(_gallery(0.8, 1.2), 6)


@pytest.mark.parametrize(("size", "expected"), [((320, 200), (160, 100)), ((30, 900), (5, 160)), ((20, 10), (20, 10))])
def test_thumbnails_are_small_jpegs_that_keep_their_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = thumbnail(Record("a", MemoryImage("a.png", size), ("a caption",), "val"))
    assert (picture.width, picture.height) == expected
    head, data = picture.source.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "JPEG"
        assert image.size == expected
        assert max(image.size) <= THUMBNAIL
