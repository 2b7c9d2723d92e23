from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.balancers import PaperBalancer
from distilvl.objectives.balancers.base import FLOOR, MAX_SCALE

NAMES = ("cd", "fd", "sd", "hnd")
HISTORY = [(3.0, 0.03, 0.5, 9.0), (2.0, 0.031, 0.4, 12.0), (2.5, 0.02, 0.2, 1.5)]

sizes = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))
steps = st.tuples(sizes, sizes, sizes, sizes)


def losses_of(values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in zip(NAMES, values, strict=True)}


def by_hand(history, tau, total=4.0):
    """Eq. 15-18 with Python floats, for losses well above the floor: the multipliers of each step."""
    out, before = [], None
    for now in history:
        rate = [1.0] * len(now) if before is None else [a / b for a, b in zip(now, before, strict=True)]
        exps = [math.exp(r / tau) for r in rate]
        weight = [total * e / sum(exps) for e in exps]
        out.append([w * max(now) / value for w, value in zip(weight, now, strict=True)])
        before = now
    return out


@pytest.mark.parametrize("tau", [0.2, 1.0, 5.0])
def test_matches_the_formula(tau):
    balancer = PaperBalancer(tau)
    for values, expected in zip(HISTORY, by_hand(HISTORY, tau), strict=True):
        multipliers = balancer(losses_of(values))
        assert list(multipliers) == list(NAMES)
        assert [m.item() for m in multipliers.values()] == pytest.approx(expected, rel=1e-12)


def test_report_names_rates_weights_and_scales():
    balancer = PaperBalancer()
    balancer(losses_of(HISTORY[0]))
    assert balancer.report["rate"] == dict.fromkeys(NAMES, 1.0)
    assert balancer.report["weight"] == pytest.approx(dict.fromkeys(NAMES, 1.0))
    multipliers = balancer(losses_of(HISTORY[1]))
    report = balancer.report
    assert report["rate"]["hnd"] == pytest.approx(12 / 9)
    assert report["scale"]["cd"] == pytest.approx(12 / 2)
    for name in NAMES:
        assert multipliers[name].item() == pytest.approx(report["weight"][name] * report["scale"][name])


def test_smoothing_takes_rates_of_running_means():
    balancer = PaperBalancer(smoothing=0.9)
    balancer(losses_of(HISTORY[0]))
    balancer(losses_of(HISTORY[1]))
    assert balancer.report["rate"]["hnd"] == pytest.approx((0.9 * 9 + 0.1 * 12) / 9)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("every_step", [9 / 3, 12 / 2, 2.5 / 2.5]),
        ("first_step", [9 / 3, 9 / 3, 9 / 3]),
        ("running_mean", [9 / 3, (0.99 * 9 + 0.01 * 12) / (0.99 * 3 + 0.01 * 2)]),
        ("power_of_ten", [1, 10, 1]),
    ],
)
def test_when_losses_are_scaled(scaling, expected):
    balancer = PaperBalancer(scaling=scaling)
    found = []
    for values in HISTORY[: len(expected)]:
        balancer(losses_of(values))
        found.append(balancer.report["scale"]["cd"])
    assert found == pytest.approx(expected, rel=1e-12)
    again = PaperBalancer(scaling=scaling)
    again(losses_of(HISTORY[0]))
    kept = PaperBalancer(scaling=scaling)
    kept.load_state_dict(again.state_dict())
    assert kept(losses_of(HISTORY[1])) == again(losses_of(HISTORY[1]))


def test_powers_of_ten_bring_all_losses_within_one_magnitude():
    balancer = PaperBalancer(scaling="power_of_ten")
    balancer(losses_of((3.0, 0.03, 0.5, 140.0)))
    assert balancer.report["scale"] == pytest.approx({"cd": 100, "fd": 10_000, "sd": 1_000, "hnd": 1})


def test_no_gradient_flows_through_the_multipliers():
    x = torch.tensor(2.0, requires_grad=True)
    losses = {"cd": x**2, "fd": 3 * x}
    multipliers = PaperBalancer()(losses)
    assert not any(m.requires_grad for m in multipliers.values())
    sum(multipliers[name] * losses[name] for name in losses).backward()
    assert x.grad.item() == pytest.approx(6 / 4 * 4 + 6 / 6 * 3)  # s_m times dL_m/dx


def test_tau_has_an_effect():
    weights = []
    for tau in (0.05, 1.0, 5.0):
        balancer = PaperBalancer(tau)
        balancer(losses_of(HISTORY[0]))
        balancer(losses_of(HISTORY[1]))
        weights.append(balancer.report["weight"]["hnd"])
    assert weights[0] > weights[1] > weights[2]


def test_a_loss_of_zero_does_not_poison_its_step_or_the_next():
    balancer = PaperBalancer()
    with_zero = [(2.0, 0.03, 0.5, 1.0), (2.0, 0.03, 0.5, 0.0), (2.0, 0.03, 0.5, 0.0), (2.0, 0.03, 0.5, 1.0)]
    balancer(losses_of(with_zero[0]))
    balancer(losses_of(with_zero[1]))
    assert balancer.report["rate"]["hnd"] == 0
    assert balancer.report["scale"]["hnd"] == MAX_SCALE
    for values in with_zero[2:]:
        balancer(losses_of(values))
        assert balancer.report["rate"] == dict.fromkeys(NAMES, 1.0)
        assert balancer.report["weight"] == pytest.approx(dict.fromkeys(NAMES, 1.0))
    assert balancer.report["scale"]["hnd"] == 2


@given(
    history=st.lists(steps, min_size=1, max_size=6),
    tau=st.sampled_from([0.05, 1.0, 5.0]),
    scaling=st.sampled_from(["every_step", "first_step", "running_mean", "power_of_ten"]),
)
def test_weights_and_scales_are_bounded(history, tau, scaling):
    balancer = PaperBalancer(tau, scaling=scaling)
    for values in history:
        multipliers = balancer(losses_of(values))
        assert sum(balancer.report["weight"].values()) == pytest.approx(4)
        for name in NAMES:
            assert multipliers[name].isfinite()
            assert 0 <= balancer.report["weight"][name] <= 4 + 1e-9
            assert 1 <= balancer.report["scale"][name] <= MAX_SCALE
            assert balancer.report["rate"][name] <= 1e6 / FLOOR


@given(values=steps, order=st.permutations(NAMES))
def test_order_of_the_losses_does_not_matter(values, order):
    plain, shuffled = PaperBalancer(), PaperBalancer()
    for step in (HISTORY[0], values):
        losses = losses_of(step)
        expected, got = plain(losses), shuffled({name: losses[name] for name in order})
    for name in NAMES:
        assert got[name].item() == pytest.approx(expected[name].item(), rel=1e-9)


@given(values=st.tuples(*[st.floats(0.01, 100)] * 4))
def test_scaled_losses_all_have_the_size_of_the_largest(values):
    balancer = PaperBalancer()
    balancer(losses_of(values))
    for name, value in zip(NAMES, values, strict=True):
        assert balancer.report["scale"][name] * value == pytest.approx(max(values))
