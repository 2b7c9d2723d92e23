"""The student as training needs it."""

from __future__ import annotations

import pytest

from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student

CAPTIONS = ["a red circle", "a small green star above a blue square", "two hearts", "grey", "a star and a circle"]


@pytest.mark.parametrize("at_a_time", [1, 2, 5, 9])
def test_captions_are_the_same_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    encoder = DualEncoder(build_student(load_config("demo", student="demo").student, 8, CAPTIONS))
    one_by_one = [encoder.tokenize([caption])[0] for caption in CAPTIONS]
    monkeypatch.setattr("distilvl.students.dual_encoder._CAPTIONS_AT_A_TIME", at_a_time)
    packed = encoder.tokenize_all(CAPTIONS)
    assert [packed[row].tolist() for row in range(len(packed))] == encoder.tokenize(CAPTIONS) == one_by_one
    assert len(encoder.tokenize_all([])) == 0
