"""Teachers behind checks: the object itself, each call, and the first embeddings."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import bare, checked, encode, look_at_first, module_in_training


class Mine:
    name, revision, dim = "mine", "1", 2
    batch = 4

    def encode_images(self, images: Any) -> np.ndarray:
        return np.ones((len(images), 2))

    def encode_texts(self, texts: Any) -> np.ndarray:
        return np.full((len(texts), 2), float(self.batch))


class Paid(Mine):
    def deliver_images(self, images, arrived): ...
    def deliver_texts(self, texts, arrived): ...
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


TEXTS = [f"text {k}" for k in range(20)]


class Fails:
    """Raises at every call that `fault` says it cannot take."""

    name, revision, dim = "fails", "1", 2

    def __init__(self, fault: Any) -> None:
        self.fault, self.asked = fault, 0

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.asked += len(texts)
        if self.fault(texts):
            raise KeyError("no such\nword.")
        return np.ones((len(texts), 2))

    encode_images = encode_texts


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_the_item_at_which_a_teacher_fails_is_found(bad: int):
    teacher = Fails(lambda texts: TEXTS[bad] in texts)
    with pytest.raises(DistilvlError) as caught:
        encode(teacher, "text", TEXTS, TEXTS)
    assert str(caught.value).startswith(
        f"teacher 'fails' (class Fails) failed in encode_texts at 'text {bad}': KeyError: 'no such\\nword.'."
    )
    assert isinstance(caught.value.__cause__, KeyError)
    assert teacher.asked <= 3 * len(TEXTS)


def test_too_many_items_together():
    with pytest.raises(DistilvlError, match=r"at 'text 0' and 19 more, together: KeyError.*smaller batches"):
        encode(Fails(lambda texts: len(texts) > 12), "text", TEXTS, TEXTS)


def test_a_loaded_teacher_is_not_asked_again_when_it_fails():
    teacher = Fails(lambda texts: "text 7" in texts)
    with pytest.raises(DistilvlError, match=r"at 'text 0' and 19 more: KeyError"):
        checked(teacher).encode_texts(TEXTS)
    assert teacher.asked == 20


def test_an_error_of_ours_stays_as_it_is():
    def fail(_: Any) -> None:
        raise DistilvlError("this line")

    teacher: Any = SimpleNamespace(name="m", revision="1", dim=2, encode_images=fail, encode_texts=fail)
    with pytest.raises(DistilvlError, match=r"^this line$"):
        encode(teacher, "text", ["a"], ["a"])


def test_names_of_images():
    teacher = checked(Fails(lambda _: True))
    with pytest.raises(DistilvlError, match="failed in encode_images at 'image 0': KeyError"):
        teacher.encode_images([Image.new("RGB", (2, 2))])
    long = 300 * "x" + "/photo.jpg"
    with pytest.raises(DistilvlError, match=r"'…x+/photo\.jpg'"):
        encode(Fails(lambda _: True), "image", [0], [long])


class _Clears:
    name, revision, dim = "clears", "1", 2

    def encode_texts(self, texts: list[str]) -> list[list[float]]:
        rows = [[1.0, len(text)] for text in texts]
        texts.clear()
        return rows


class _Exits(_Clears):
    def encode_texts(self, texts: list[str]) -> list[list[float]]:
        raise SystemExit(0)


def test_what_a_teacher_does_to_its_list_changes_nothing() -> None:
    texts = ["a", "bb"]
    assert encode(_Clears(), "text", texts, texts).tolist() == [[1.0, 1.0], [1.0, 2.0]]
    assert texts == ["a", "bb"]


def test_a_teacher_that_ends_the_program_is_named() -> None:
    with pytest.raises(DistilvlError, match=r"class _Exits\) failed in encode_texts at 'a': SystemExit"):
        encode(_Exits(), "text", ["a"], ["a"])


NAMES = ["a dog", "a cat", "a bird"]


class Noisy:
    """A network that nobody put into evaluation mode; `dropout` is its share of zeros."""

    name, revision, dim = "noisy", "1", 64

    def __init__(self, dropout: float) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Dropout(dropout))
        self.asked = 0

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Any:
        self.asked += len(texts)
        return self.model(torch.tensor([[float(ord(text[k % len(text)]) - 97) for k in range(8)] for text in texts]))

    encode_images = encode_texts


def look(teacher: Noisy) -> None:
    rows = np.asarray(teacher.encode_texts(NAMES))
    look_at_first(teacher, "text", NAMES, NAMES, rows)


def test_dropout_that_was_left_on_is_refused():
    with pytest.raises(
        DistilvlError, match=r"class Noisy.*another embedding for 'a dog'.*its model is in training.*eval\(\)"
    ):
        look(Noisy(0.3))


def test_training_mode_that_changes_nothing_is_fine_and_evaluation_mode_costs_nothing():
    teacher = Noisy(0.0)
    look(teacher)
    assert teacher.asked == 4
    teacher = Noisy(0.3)
    teacher.model.eval()
    look(teacher)
    assert teacher.asked == 3


def test_a_part_in_training_mode_and_a_teacher_that_is_a_module():
    teacher = Noisy(0.3)
    teacher.model.eval()[1].train()
    assert module_in_training(teacher) == "model"
    assert module_in_training(torch.nn.Linear(1, 1)) == "Linear"
    assert module_in_training(object()) is None


def test_one_row_for_all_items_is_said(caplog: pytest.LogCaptureFixture):
    teacher = Noisy(0.0)
    teacher.model.eval()
    with caplog.at_level(logging.WARNING, "distilvl"):
        look_at_first(teacher, "text", NAMES, NAMES, np.ones((3, 64)))
        look_at_first(teacher, "text", NAMES[:1], NAMES[:1], np.ones((1, 64)))
        look(teacher)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "(class Noisy) gives the same embedding for all of the first 3 texts ('a dog' and 2 more)" in line
