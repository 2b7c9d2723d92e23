from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.teachers.checks import look_at_first, module_in_training

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
