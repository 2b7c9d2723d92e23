from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distilvl.objectives import EMPTY, ContrastiveDistillation, TeacherQueue


class Entries(NamedTuple):
    features: Tensor
    ids: Tensor


def by_hand(z, u, queue, ids, tau, mask=True):
    """Eq. 5-6 with Python floats."""
    import math

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    z, u, q = z.tolist(), u.tolist(), queue.features.tolist()
    total = 0.0
    for zi, ui, own in zip(z, u, ids.tolist(), strict=True):
        positive = math.exp(dot(zi, ui) / tau)
        negatives = sum(
            math.exp(dot(zi, qk) / tau)
            for qk, k in zip(q, queue.ids.tolist(), strict=True)
            if k != EMPTY and not (mask and k == own)
        )
        total -= math.log(positive / (positive + negatives))
    return total / len(z)


@pytest.fixture
def parts(unit_rows):
    queue = Entries(unit_rows(7, 5, 3), torch.tensor([0, 9, 1, EMPTY, 8, 2, 9]))
    return unit_rows(4, 5, 1), unit_rows(4, 5, 2), queue, torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("mask", [True, False])
def test_matches_the_formula(parts, tau, mask):
    loss = ContrastiveDistillation(tau, mask_false_negatives=mask)(*parts)
    assert loss.item() == pytest.approx(by_hand(*parts, tau, mask), rel=1e-12)


def test_gradcheck(parts):
    z, u, queue, ids = parts
    loss = ContrastiveDistillation(0.2)
    assert torch.autograd.gradcheck(lambda z, u: loss(z, u, queue, ids), (z.requires_grad_(), u.requires_grad_()))


def test_queue_entries_of_the_same_image_are_never_negatives(parts):
    z, u, queue, ids = parts
    features = queue.features.clone().requires_grad_()
    one, two = z[:1], u[:1]  # of image 0, as is queue entry 0; entry 3 is empty
    ContrastiveDistillation()(one, two, Entries(features, queue.ids), ids[:1]).backward()
    assert torch.equal(features.grad.abs().sum(dim=1) == 0, torch.tensor([1, 0, 0, 1, 0, 0, 0]).bool())


def test_unmasked_reading_counts_them(parts):
    assert ContrastiveDistillation(mask_false_negatives=False)(*parts) > ContrastiveDistillation()(*parts)


@pytest.mark.parametrize("ids", [[EMPTY, EMPTY], [4, 4], []])
def test_no_negative_gives_exactly_zero_and_a_finite_gradient(unit_rows, ids):
    z = unit_rows(2, 5, 1).requires_grad_()
    queue = Entries(unit_rows(2, 5, 2)[: len(ids)], torch.tensor(ids, dtype=torch.int64))
    loss = ContrastiveDistillation()(z, unit_rows(2, 5, 3), queue, torch.tensor([4, 4]))
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(z.grad) == 0


@given(seed=st.integers(0, 1000))
def test_order_of_batch_and_queue_does_not_matter(unit_rows, seed):
    z, u, q = unit_rows(6, 4, seed), unit_rows(6, 4, seed + 1), unit_rows(9, 4, seed + 2)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (6,), generator=generator)
    queue_ids = torch.randint(-1, 6, (9,), generator=generator)
    i, k = torch.randperm(6, generator=generator), torch.randperm(9, generator=generator)
    loss = ContrastiveDistillation()
    torch.testing.assert_close(
        loss(z, u, Entries(q, queue_ids), ids), loss(z[i], u[i], Entries(q[k], queue_ids[k]), ids[i])
    )


@given(seed=st.integers(0, 1000))
def test_adding_entries_of_the_batchs_own_image_changes_nothing(unit_rows, seed):
    z, u, q = unit_rows(3, 4, seed), unit_rows(3, 4, seed + 1), unit_rows(5, 4, seed + 2)
    ids, queue_ids = torch.zeros(3, dtype=torch.int64), torch.tensor([1, 2, 3, 0, 0])
    loss = ContrastiveDistillation()
    torch.testing.assert_close(loss(z, u, Entries(q, queue_ids), ids), loss(z, u, Entries(q[:3], queue_ids[:3]), ids))


def test_half_precision_input_and_autocast_give_a_float32_loss(parts):
    z, u, queue, ids = parts
    z16, u16 = z.bfloat16(), u.bfloat16()
    teacher = TeacherQueue(7, 5)
    teacher.enqueue(queue.features, queue.ids)
    loss = ContrastiveDistillation()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(z16, u16, teacher, ids)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss(z16.float(), u16.float(), teacher, ids))
