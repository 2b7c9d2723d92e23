from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distilvl.objectives import EMPTY
from distilvl.objectives.baselines import ContrastiveRepresentationDistillation


class Entries(NamedTuple):
    features: Tensor
    ids: Tensor


def by_hand(z, u, queue, ids, tau, population=1000):
    """The authors' form, h = P / (P + N/M) with P = e^s / Z and Z = M mean(e^s), for any size M of the data."""

    def power(a, b):
        return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / tau)

    z, u, q, qids = z.tolist(), u.tolist(), queue.features.tolist(), queue.ids.tolist()
    negatives = [[qk for qk, k in zip(q, qids, strict=True) if k not in (EMPTY, own)] for own in ids.tolist()]
    levels = [power(ui, qk) for ui, row in zip(u, negatives, strict=True) for qk in row]
    constant = population * sum(levels) / len(levels)
    total = 0.0
    for zi, ui, row in zip(z, u, negatives, strict=True):
        if not row:
            continue
        noise = len(row) / population
        own = power(zi, ui) / constant
        total -= math.log(own / (own + noise))
        for qk in row:
            p = power(zi, qk) / constant
            total -= math.log(noise / (p + noise))
    return total / len(z)


@pytest.fixture
def parts(unit_rows):
    queue = Entries(unit_rows(7, 5, 3), torch.tensor([0, 9, 1, EMPTY, 8, 2, 9]))
    return unit_rows(4, 5, 1), unit_rows(4, 5, 2), queue, torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("tau", [0.07, 0.5])
@pytest.mark.parametrize("population", [10, 50_000])
def test_matches_the_formula_whatever_the_size_of_the_data(parts, tau, population):
    loss = ContrastiveRepresentationDistillation(tau)(*parts)
    assert loss.item() == pytest.approx(by_hand(*parts, tau, population), rel=1e-10)


def test_matches_torchdistill(wave_rows):
    """torchdistill 1.1.5, `CRDLoss(..., temperature=0.07, eps=0)`: `compute_contrast_loss` of the student's half of
    `contrast_memory`, its bank holding the batch's teacher rows and the queue's, its Z set to this loss's level."""
    z, u, q = (wave_rows(n, 5, phase) for n, phase in ((6, 1.0), (6, 2.0), (8, 5.0)))
    loss = ContrastiveRepresentationDistillation(0.07)(z, u, Entries(q, torch.full((8,), 9)), torch.arange(6))
    assert loss.item() == pytest.approx(8.387864317836327, rel=1e-12)


def test_gradcheck(parts):
    z, u, queue, ids = parts
    loss = ContrastiveRepresentationDistillation(0.3)
    assert torch.autograd.gradcheck(lambda z: loss(z, u, queue, ids), z.requires_grad_())


def test_only_entries_of_other_images_are_negatives(parts):
    z, u, queue, ids = parts
    features = queue.features.clone().requires_grad_()
    ContrastiveRepresentationDistillation()(z[:1], u[:1], Entries(features, queue.ids), ids[:1]).backward()
    assert torch.equal(features.grad.abs().sum(dim=1) == 0, torch.tensor([1, 0, 0, 1, 0, 0, 0]).bool())


@pytest.mark.parametrize("ids", [[EMPTY, EMPTY], [4, 4], []])
def test_no_negative_gives_exactly_zero_and_a_finite_gradient(unit_rows, ids):
    z = unit_rows(2, 5, 1).requires_grad_()
    queue = Entries(unit_rows(2, 5, 2)[: len(ids)], torch.tensor(ids, dtype=torch.int64))
    loss = ContrastiveRepresentationDistillation()(z, unit_rows(2, 5, 3), queue, torch.tensor([4, 4]))
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(z.grad) == 0


@pytest.mark.parametrize("size", [10, 1000, 8192])
def test_push_of_the_negatives_stays_near_one_for_any_queue(unit_rows, size):
    """At z == u the sum of h over a row's negatives is about 1: more negatives do not drown the positive."""
    u = unit_rows(8, 16, 1)
    queue = Entries(unit_rows(size, 16, 2), torch.full((size,), 99))
    z = u.clone().requires_grad_()
    tau = 0.5
    ContrastiveRepresentationDistillation(tau)(z, u, queue, torch.arange(8)).backward()
    level = torch.exp(u @ queue.features.T / tau).mean()
    share = torch.sigmoid(u @ queue.features.T / tau - level.log() - math.log(size))
    assert 0.5 < share.sum(dim=1).mean() < 2
    assert z.grad.norm(dim=1).max() < 2 / tau / 8


@given(seed=st.integers(0, 1000))
def test_order_of_batch_and_queue_does_not_matter(unit_rows, seed):
    z, u, q = unit_rows(6, 4, seed), unit_rows(6, 4, seed + 1), unit_rows(9, 4, seed + 2)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (6,), generator=generator)
    queue_ids = torch.randint(-1, 6, (9,), generator=generator)
    i, k = torch.randperm(6, generator=generator), torch.randperm(9, generator=generator)
    loss = ContrastiveRepresentationDistillation()
    torch.testing.assert_close(
        loss(z, u, Entries(q, queue_ids), ids), loss(z[i], u[i], Entries(q[k], queue_ids[k]), ids[i])
    )


def test_half_precision_identical_rows_give_a_finite_float32_loss(parts):
    z, _, queue, ids = parts
    same = z[:1].expand_as(z).bfloat16()
    loss = ContrastiveRepresentationDistillation()(same, same, Entries(queue.features.bfloat16(), queue.ids), ids)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
