from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.balancers import UncertaintyBalancer


def multipliers(balancer, **values):
    return {
        n: m.item() for n, m in balancer({n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()}).items()
    }


def test_starts_at_unit_variance_and_follows_the_gradient():
    balancer = UncertaintyBalancer(lr=0.2)
    assert multipliers(balancer, cd=1.5, fd=0.1) == {"cd": 0.5, "fd": 0.5}
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    losses = torch.tensor([1.5, 0.1], dtype=torch.float64)
    (losses * (-s).exp() / 2 + s / 2).sum().backward()
    moved = -0.2 * s.grad
    assert list(balancer.state["log_variance"].values()) == pytest.approx(moved.tolist(), rel=1e-12)
    after = multipliers(balancer, cd=1.5, fd=0.1)
    assert list(after.values()) == pytest.approx(((-moved).exp() / 2).tolist(), rel=1e-12)


def test_one_step_moves_by_half_the_rate_at_most():
    balancer = UncertaintyBalancer(lr=0.2)
    multipliers(balancer, cd=1e6, fd=0.0)
    assert balancer.state["log_variance"] == {"cd": 0.1, "fd": -0.1}


@given(values=st.tuples(*[st.floats(1e-4, 1e4)] * 3))
def test_settles_at_the_optimum(values):
    balancer = UncertaintyBalancer(lr=1.0)
    named = dict(zip(("cd", "fd", "sd"), values, strict=True))
    for _ in range(100):
        got = multipliers(balancer, **named)
    assert got == pytest.approx({name: 0.5 / value for name, value in named.items()}, rel=1e-6)


def test_a_loss_of_zero_stays_at_the_bound_and_comes_back_as_fast():
    balancer = UncertaintyBalancer(lr=0.5)
    for _ in range(200):
        got = multipliers(balancer, hnd=0.0)
    assert got["hnd"] == pytest.approx(0.5e5)
    for _ in range(100):
        got = multipliers(balancer, hnd=4.0)
    assert got["hnd"] == pytest.approx(0.5 / 4, rel=0.01)
    for _ in range(200):
        got = multipliers(balancer, hnd=1e6)
    assert got["hnd"] == pytest.approx(0.5e-5)


def test_near_the_optimum_the_variance_is_a_running_mean_of_the_loss():
    balancer, mean, lr = UncertaintyBalancer(lr=0.02), 1.0, 0.02
    for k in range(400):
        loss = 1 + 0.3 * math.sin(k / 20)
        multipliers(balancer, cd=loss)
        mean += lr / 2 * (loss - mean)
        assert math.exp(balancer.state["log_variance"]["cd"]) == pytest.approx(mean, rel=1e-3)
