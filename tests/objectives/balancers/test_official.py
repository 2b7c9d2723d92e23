from __future__ import annotations

import pytest
import torch

from distilvl.objectives.balancers import OfficialBalancer

FIRST = {"cd": torch.tensor(3.0), "fd": torch.tensor(0.03), "sd": torch.tensor(0.5)}
SECOND = {"cd": torch.tensor(1.0), "fd": torch.tensor(0.02), "sd": torch.tensor(0.4)}


def test_first_step_is_unweighted():
    assert {name: m.item() for name, m in OfficialBalancer()(FIRST).items()} == {"cd": 1, "fd": 1, "sd": 1}


@pytest.mark.parametrize("tau", [0.05, 1.0, 5.0])
def test_later_steps_match_the_formula_whatever_tau(tau):
    balancer = OfficialBalancer(tau)
    balancer(FIRST)
    multipliers = {name: m.item() for name, m in balancer(SECOND).items()}
    expected = {name: 10 / 3 * 1.0 / value.item() for name, value in SECOND.items()}
    assert multipliers == pytest.approx(expected)
    assert balancer.report["rate"] == pytest.approx(dict.fromkeys(SECOND, 1 / 3))


def test_weights_are_the_same_bit_for_bit_whatever_tau():
    runs = []
    for tau in (0.05, 1.0, 5.0):
        balancer = OfficialBalancer(tau)
        runs.append([balancer(losses) for losses in (FIRST, SECOND, FIRST)])
    assert runs[0] == runs[1] == runs[2]


def test_a_loss_of_zero_stays_finite():
    balancer = OfficialBalancer()
    for value in (1.0, 0.0, 1.0):
        multipliers = balancer({"cd": torch.tensor(2.0), "hnd": torch.tensor(value)})
        assert all(m.isfinite() for m in multipliers.values())
    assert multipliers["hnd"].item() == pytest.approx(10 / 2 * 2)
