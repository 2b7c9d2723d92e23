from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import bare, checked


class Mine:
    name, revision, dim = "mine", "1", 2
    batch = 4

    def encode_images(self, images: Any) -> np.ndarray:
        return np.ones((len(images), 2))

    def encode_texts(self, texts: Any) -> np.ndarray:
        return np.full((len(texts), 2), float(self.batch))


class Paid(Mine):
    def ask_images(self, images, arrived): ...
    def ask_texts(self, texts, arrived): ...
    def estimate(self, images, texts): ...


def test_it_stands_for_the_teacher_in_every_way():
    mine = Mine()
    teacher = checked(mine)
    assert isinstance(teacher, Mine)
    assert isinstance(teacher, Teacher)
    assert not isinstance(teacher, PiecewiseTeacher)
    assert isinstance(checked(Paid()), PiecewiseTeacher)
    assert (teacher.name, teacher.revision, teacher.dim, teacher.batch) == ("mine", "1", 2, 4)
    teacher.batch = 8
    assert mine.batch == 8
    assert teacher.encode_texts(["a"]).tolist() == [[8, 8]]
    assert copy.copy(teacher).batch == 8
    with pytest.raises(AttributeError, match="absent"):
        _ = teacher.absent


def test_once_is_enough():
    mine = Mine()
    assert checked(checked(mine)) is not mine
    assert bare(checked(checked(mine))) is mine
    assert bare(mine) is mine


def test_no_items_are_no_rows():
    assert checked(Mine()).encode_texts([]).shape == checked(Mine()).encode_images([]).shape == (0, 2)


def test_numpys_whole_numbers_are_a_width():
    assert checked(SimpleNamespace(**{**surface(), "dim": np.int64(3)})).dim == 3


def surface() -> dict[str, Any]:
    return {"name": "m", "revision": "1", "dim": 2, "encode_images": len, "encode_texts": len}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encode_texts": None}, "it has no method 'encode_texts'"),
        ({"encode_images": "later"}, "it has no method 'encode_images'"),
        ({"name": None}, "it has no 'name'"),
        ({"revision": 3}, "its 'revision' is 3, not str"),
        ({"revision": ""}, "its 'revision' is '', not str"),
        ({"dim": None}, "it has no 'dim'"),
        ({"dim": 2.0}, r"its 'dim' is 2\.0, not int"),
        ({"dim": True}, "its 'dim' is True, not int above 0"),
        ({"dim": -1}, "its 'dim' is -1, not int above 0"),
        ({"dim": len}, "its 'dim' is a method, not int"),
    ],
)
def test_what_is_no_teacher(change: dict[str, Any], words: str):
    with pytest.raises(DistilvlError, match=f"object of the class SimpleNamespace is not a teacher: {words}"):
        checked(SimpleNamespace(**{**surface(), **change}))


def test_a_property_that_fails_and_a_class_that_was_not_made():
    class Broken(Mine):
        @property
        def dim(self) -> int:  # type: ignore[override]
            raise RuntimeError("not loaded yet")

    with pytest.raises(DistilvlError, match=r"its 'dim' raises RuntimeError: not loaded yet"):
        checked(Broken())
    with pytest.raises(DistilvlError, match=r"Mine is a class, not a teacher. Give Mine\(\)"):
        checked(Mine)
