from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import distilvl
from distilvl.config import CosineSchedule, OptimizerConfig, StepSchedule
from distilvl.students import DualEncoder
from distilvl.students.storage import route
from distilvl.training.optimizer import build_optimizer, rate_factor, set_rates


def test_papers_schedule_drops_to_a_tenth_at_half_time() -> None:
    config = StepSchedule(kind="step", milestones=[0.5], gamma=0.1)
    assert [rate_factor(step, 20, config) for step in (0, 9, 10, 19)] == pytest.approx([1, 1, 0.1, 0.1])


def test_cosine_falls_from_one_to_nearly_zero_after_the_warm_up() -> None:
    config = CosineSchedule(kind="cosine", warmup=0.1)
    factors = [rate_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == pytest.approx(1)
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.001
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_rates_fall_from_layer_to_layer_down_each_tower(student_yaml: Path) -> None:
    encoder = DualEncoder(distilvl.build_student(student_yaml, 12, captions=["a red circle"]))
    optimizer = build_optimizer(encoder, OptimizerConfig(lr=1e-3, layer_decay=0.5))
    rate = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(list(encoder.parameters()))
    for modality in ("image", "text"):
        tower = route(encoder.student, modality)[0].model
        blocks = {int(m[1]): rate[id(p)] for n, p in tower.named_parameters() if (m := re.search(r"layers?\.(\d+)", n))}
        last = max(blocks)
        assert blocks == {k: 1e-3 * 0.5 ** (last - k) for k in range(last + 1)}, modality
        embeddings = {rate[id(p)] for name, p in tower.named_parameters() if "embeddings" in name}
        assert embeddings == {1e-3 * 0.5 ** (last + 1)}
    assert optimizer.param_groups[-1]["name"] == "heads"
    assert optimizer.param_groups[-1]["base_lr"] == 1e-3


def test_weights_of_the_objective_learn_at_the_heads_rate_without_decay(student_yaml: Path) -> None:
    encoder = DualEncoder(distilvl.build_student(student_yaml, 12, captions=["a red circle"]))
    extra = torch.nn.Parameter(torch.zeros(()))
    group = build_optimizer(encoder, OptimizerConfig(lr=1e-4, head_lr=1e-2), [extra]).param_groups[-1]
    assert (group["name"], group["lr"], group["weight_decay"]) == ("objective", 1e-2, 0.0)
    assert group["params"][0] is extra


def test_heads_have_a_rate_of_their_own(student_yaml: Path) -> None:
    encoder = DualEncoder(distilvl.build_student(student_yaml, 12, captions=["a red circle"]))
    optimizer = build_optimizer(encoder, OptimizerConfig(lr=1e-4, head_lr=1e-2))
    towers, heads = optimizer.param_groups
    assert sum(p.numel() for p in heads["params"]) == 2 * (16 * 12 + 12)
    assert len(towers["params"]) + len(heads["params"]) == len(list(encoder.parameters()))
    set_rates(optimizer, 0.5)
    assert (towers["lr"], heads["lr"]) == (5e-5, 5e-3)
    same = build_optimizer(encoder, OptimizerConfig(lr=1e-4))
    assert same.param_groups[1]["lr"] == 1e-4
