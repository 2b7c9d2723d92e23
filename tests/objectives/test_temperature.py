from __future__ import annotations

import pytest
import torch

from distilvl.objectives import ContrastiveDistillation, InfoNCE, TeacherQueue
from distilvl.objectives.loss import LOWEST, LearnedTemperature


def test_starts_as_the_fixed_one_and_has_the_gradient_of_the_formula(unit_rows):
    z, u, ids = unit_rows(5, 4, 0), unit_rows(5, 4, 1), torch.tensor([0, 1, 2, 1, 3])
    learned = InfoNCE(LearnedTemperature(0.1))
    loss = learned(z, u, ids)
    torch.testing.assert_close(loss, InfoNCE(0.1)(z, u, ids))
    loss.backward()
    step = 1e-4
    tau = torch.tensor(0.1, dtype=torch.float64).log()
    z, u = z.double(), u.double()
    high, low = (InfoNCE(float((tau + sign * step).exp()))(z, u, ids) for sign in (1, -1))
    assert float(learned.temperature.log_tau.grad) == pytest.approx(float((high - low) / (2 * step)), rel=1e-3)


def test_cd_takes_one_too_and_it_never_falls_below_the_bound(unit_rows):
    queue = TeacherQueue(6, 4)
    queue.enqueue(unit_rows(5, 4, 2), torch.tensor([10, 1, 12, 13, 0]))
    rows = unit_rows(3, 4, 0), unit_rows(3, 4, 1), queue, torch.arange(3)
    torch.testing.assert_close(
        ContrastiveDistillation(LearnedTemperature(1e-6))(*rows), ContrastiveDistillation(LOWEST)(*rows)
    )
    learned = ContrastiveDistillation(LearnedTemperature(0.1))
    learned(*rows).backward()
    assert learned.temperature.log_tau.grad.isfinite()
    assert learned.temperature.log_tau.grad.abs() > 1e-3


def test_one_that_a_step_took_below_the_bound_comes_back(unit_rows):
    z, others, ids = unit_rows(8, 4, 0), unit_rows(8, 4, 1), torch.arange(8)
    loss = InfoNCE(LearnedTemperature(LOWEST / 2))
    assert loss(z, others, ids).item() == pytest.approx(InfoNCE(LOWEST)(z, others, ids).item(), rel=1e-4)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        loss(z, others, ids).backward()
        optimizer.step()
    assert loss.temperature.value.item() > 2 * LOWEST
