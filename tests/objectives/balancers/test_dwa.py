from __future__ import annotations

import math

import pytest
import torch

from distilvl.objectives.balancers import DWABalancer

EPOCHS = [[(4.0, 0.1), (2.0, 0.3)], [(2.0, 0.1), (1.0, 0.2)], [(1.0, 0.15)], [(9.0, 9.0)]]
MEANS = [(3.0, 0.2), (1.5, 0.15), (1.0, 0.15)]


def run_epoch(balancer, epoch):
    out = []
    for cd, fd in epoch:
        multipliers = balancer({"cd": torch.tensor(cd), "fd": torch.tensor(fd)})
        out.append([multipliers["cd"].item(), multipliers["fd"].item()])
    balancer.end_epoch()
    return out


def by_hand(last, before, tau):
    exps = [math.exp(a / b / tau) for a, b in zip(last, before, strict=True)]
    return [2 * e / sum(exps) for e in exps]


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_matches_the_formula(tau):
    balancer = DWABalancer(tau)
    assert run_epoch(balancer, EPOCHS[0]) == [[1, 1], [1, 1]]
    assert run_epoch(balancer, EPOCHS[1]) == [[1, 1], [1, 1]]
    assert run_epoch(balancer, EPOCHS[2])[0] == pytest.approx(by_hand(MEANS[1], MEANS[0], tau))
    assert run_epoch(balancer, EPOCHS[3])[0] == pytest.approx(by_hand(MEANS[2], MEANS[1], tau))


def test_an_epoch_of_zeros_stays_finite():
    balancer = DWABalancer()
    for value in (1.0, 0.0, 1.0, 1.0):
        multipliers = run_epoch(balancer, [(2.0, value)])[0]
        assert all(math.isfinite(m) for m in multipliers)
    assert multipliers == pytest.approx([1, 1])


def test_end_epoch_before_any_step_does_nothing():
    balancer = DWABalancer()
    balancer.end_epoch()
    assert balancer.state_dict() == {}
