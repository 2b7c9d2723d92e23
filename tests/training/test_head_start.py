"""Heads that begin as a regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilvl.training.optimizer import ridge_regression


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
