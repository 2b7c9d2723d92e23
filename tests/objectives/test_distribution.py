from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distilvl.objectives import EMPTY, QueueDistribution, TeacherQueue


class Entries(NamedTuple):
    features: Tensor
    ids: Tensor


def by_hand(z, u, queues, tau):
    """The formula with Python floats."""

    def softmax(row, keys):
        powers = [math.exp(sum(x * y for x, y in zip(row, key, strict=True)) / tau) for key in keys]
        return [power / sum(powers) for power in powers]

    total = 0.0
    for queue in queues:
        keys = [key for key, k in zip(queue.features.tolist(), queue.ids.tolist(), strict=True) if k != EMPTY]
        for zi, ui in zip(z.tolist(), u.tolist(), strict=True):
            pairs = zip(softmax(ui, keys), softmax(zi, keys), strict=True)
            total += sum(p * math.log(p / q) for p, q in pairs) / len(z)
    return total / 2


@pytest.fixture
def parts(unit_rows):
    images = Entries(unit_rows(6, 5, 3), torch.tensor([0, 9, EMPTY, 8, 2, 9]))
    texts = Entries(unit_rows(4, 5, 4), torch.tensor([0, 0, 1, EMPTY]))
    return unit_rows(3, 5, 1), unit_rows(3, 5, 2), images, texts


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_matches_the_formula(parts, tau):
    z, u, images, texts = parts
    loss = QueueDistribution(tau)(z, u, images, texts)
    assert loss.item() == pytest.approx(by_hand(z, u, (images, texts), tau), rel=1e-10)


def test_gradcheck(parts):
    z, u, images, texts = parts
    leaf = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: QueueDistribution(0.3)(x, u, images, texts), leaf)


def test_zero_where_student_and_teacher_agree_and_nothing_pulls_at_the_teacher(parts):
    _, u, images, texts = parts
    teacher = u.clone().requires_grad_()
    student = u.clone().requires_grad_()
    loss = QueueDistribution()(student, teacher, images, texts)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert student.grad.abs().max() < 1e-12
    assert teacher.grad is None


def test_empty_queues_give_exactly_zero_and_a_finite_gradient(parts):
    z, u, *_ = parts
    leaf = z.clone().requires_grad_()
    loss = QueueDistribution()(leaf, u, TeacherQueue(4, 5), TeacherQueue(4, 5))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@given(st.integers(0, 50))
def test_never_negative_and_the_order_of_the_queue_does_not_matter(unit_rows, seed):
    z, u, images, texts = (unit_rows(n, 6, 10 * seed + k) for k, n in enumerate((4, 4, 7, 5)))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(7)
    plain = QueueDistribution()(z, u, Entries(images, ids), Entries(texts, ids[:5]))
    mixed = QueueDistribution()(z, u, Entries(images[order], ids[order]), Entries(texts, ids[:5]))
    assert plain >= 0
    torch.testing.assert_close(plain, mixed)


def test_half_precision_input_gives_a_float32_loss(parts):
    z, u, images, texts = parts
    loss = QueueDistribution()(z.bfloat16(), u.half(), images, texts)
    assert loss.dtype in (torch.float32, torch.float64)
