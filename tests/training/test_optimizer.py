from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import distilvl
from distilvl.config import CosineSchedule, OptimizerConfig, StepSchedule
from distilvl.students import DualEncoder
from distilvl.students.storage import route
from distilvl.training.optimizer import average_of, build_optimizer, rate_factor, ridge_regression, set_rates


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


def test_the_mean_follows_the_weights_with_a_decay_that_grows_to_its_value() -> None:
    layer = nn.Linear(2, 1, bias=False)
    average = average_of(layer, 0.5)
    expected = None
    for count, value in enumerate((1.0, 3.0, -2.0, 5.0, 0.5, 7.0, 7.5, 1.0, 2.0, 4.0, 8.0, 1.0)):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(average.module.weight, torch.full((1, 2), expected))
    assert layer.weight.unique().item() == 1.0  # the weights themselves are not touched


def test_its_state_continues_where_it_was() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    one, other = average_of(first, 0.9), average_of(second, 0.9)
    for _ in range(4):
        nn.init.normal_(first.weight)
        one.update_parameters(first)
    other.load_state_dict(one.state_dict())
    for average in (one, other):
        average.update_parameters(second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_linear_map_is_found_again(p: int, d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.normal(size=(80, p)))
    weight, bias = torch.from_numpy(random.normal(size=(d, p))), torch.from_numpy(random.normal(size=d))
    found_weight, found_bias = ridge_regression(x, x @ weight.T + bias)
    torch.testing.assert_close(found_weight, weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(found_bias, bias, rtol=0, atol=1e-3)


def test_by_hand_in_one_dimension() -> None:
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    weight, bias = ridge_regression(x, torch.tensor([[1.0], [5.0]], dtype=torch.float64))
    # Two rows hold none out, so the smallest ridge is taken: l = 1e-5 of a variance of 1.
    assert weight.item() == pytest.approx(2 / (1 + 1e-5), rel=1e-12)
    assert bias.item() == pytest.approx(3, rel=1e-12)


def test_rows_that_it_did_not_see_are_foretold_better_than_by_least_squares() -> None:
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.normal(size=(40, 3)))
    x, fresh = (torch.from_numpy(random.normal(size=(60, 40))) for _ in range(2))
    u = x @ truth + 6 * torch.from_numpy(random.normal(size=(60, 3)))
    weight, bias = ridge_regression(x, u)
    free = torch.linalg.lstsq(x, u).solution
    assert (fresh @ weight.T + bias - fresh @ truth).norm() < 0.8 * (fresh @ free - fresh @ truth).norm()


def test_rows_that_are_all_the_same_give_the_mean() -> None:
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    weight, bias = ridge_regression(torch.ones(4, 3), u)
    assert weight.isfinite().all()
    torch.testing.assert_close(weight @ torch.ones(3, dtype=torch.float64) + bias, u.double().mean(dim=0))


def test_without_an_intercept_the_map_goes_through_the_origin() -> None:
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    weight, bias = ridge_regression(x, torch.tensor([[2.0], [4.0]], dtype=torch.float64), intercept=False)
    assert bias.item() == 0
    assert weight.item() == pytest.approx((2 + 12) / (1 + 9) / (1 + 1e-5), rel=1e-9)
