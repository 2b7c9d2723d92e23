from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.teachers.checks import checked, encode

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
