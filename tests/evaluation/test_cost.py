from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.evaluation.cost import BATCH, StudentEncoder, measure_cost
from distilvl.students import build_student
from distilvl.teachers.demo_network import DemoTeacher

IMAGES = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
CAPTIONS = ["a red square", "a green square", "a blue square on the left"]


class LinearTeacher:
    """One product an image, (1, 12) x (12, 5); texts are counted outside PyTorch."""

    num_parameters = 65

    def __init__(self) -> None:
        self.layer = nn.Linear(12, 5)
        self.sizes: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        self.sizes.append(len(images))
        pixels = [np.asarray(image.resize((2, 2)), dtype=np.float32).reshape(-1) for image in images]
        with torch.inference_mode():
            return self.layer(torch.from_numpy(np.stack(pixels))).numpy()

    def encode_texts(self, texts: Sequence[str]) -> Any:
        time.sleep(0.002 * len(texts))
        return np.array([[float(len(text))] for text in texts])


class AttentionTeacher:
    """Fused attention over 5 tokens, 2 heads of width 4, for either modality."""

    def encode_images(self, images: Sequence[Any]) -> Any:
        q = torch.ones(len(images), 2, 5, 4)
        with torch.inference_mode():
            return nn.functional.scaled_dot_product_attention(q, q, q).flatten(1).numpy()

    encode_texts = encode_images


def test_flops_of_one_product_by_hand() -> None:
    teacher = LinearTeacher()
    cost = measure_cost(teacher, IMAGES, CAPTIONS, repeats=3)
    assert cost.parameters == 65
    assert cost.image.flops == 2 * 12 * 5
    assert teacher.sizes == [1] * 5 + [BATCH] * 4  # FLOPs, then a warm-up and 3 repeats each


def test_flops_of_fused_attention_by_hand() -> None:
    """Two products (5, 4) x (4, 5) and (5, 5) x (5, 4) for each of two heads, two FLOPs a multiply-add."""
    cost = measure_cost(AttentionTeacher(), IMAGES, CAPTIONS, repeats=1)
    assert cost.image.flops == 2 * 2 * (2 * 5 * 4 * 5)
    assert cost.parameters is None


def test_time_an_item_and_no_flops_outside_pytorch() -> None:
    text = measure_cost(LinearTeacher(), IMAGES, CAPTIONS, repeats=3).text
    assert text.flops is None
    assert 2 <= text.ms_one < 200
    assert 2 <= text.ms_batch < 200


def test_the_median_is_of_repeats_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls at batch 1 take 100 (warm-up), 1, 7 and 2 s, at batch 64 all take 0.64 s."""
    durations = iter([100.0, 1.0, 7.0, 2.0, 0.64, 0.64, 0.64, 0.64] * 2)
    now, started = 0.0, False

    def clock() -> float:
        nonlocal now, started
        now += next(durations) if started else 0.0
        started = not started
        return now

    monkeypatch.setattr("distilvl.io.progress.time.perf_counter", clock)
    image = measure_cost(AttentionTeacher(), IMAGES, CAPTIONS, repeats=3).image
    assert image.ms_one == pytest.approx(2000.0)
    assert image.ms_batch == pytest.approx(10.0)


def test_a_real_student_and_a_real_teacher_take_the_same_road(student_yaml: Path) -> None:
    config = StudentConfig.model_validate(yaml.safe_load(student_yaml.read_text()))
    student = StudentEncoder(build_student(config, 24, CAPTIONS))
    assert student.encode_images(IMAGES).shape == (2, 24)
    small = measure_cost(student, IMAGES, CAPTIONS, repeats=1)
    big = measure_cost(DemoTeacher(), IMAGES, CAPTIONS, repeats=1)
    assert small.parameters
    assert big.parameters
    assert small.parameters < big.parameters
    # 16 patches of 8 x 8 x 3 to width 16, at the very least, and all weights once for each of 17 tokens at most.
    assert small.image.flops is not None
    assert 2 * 16 * 192 * 16 < small.image.flops < 2 * 17 * small.parameters
    for side in (small.image, small.text, big.image, big.text):
        assert side.flops
        assert side.ms_one > 0
        assert side.ms_batch > 0


@pytest.mark.parametrize(("images", "captions", "repeats"), [([], CAPTIONS, 1), (IMAGES, [], 1), (IMAGES, CAPTIONS, 0)])
def test_nothing_to_measure(images: list[Image.Image], captions: list[str], repeats: int) -> None:
    with pytest.raises(DistilvlError, match="at least one"):
        measure_cost(LinearTeacher(), images, captions, repeats=repeats)
