from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.loss import cross_entropy, kl_divergence


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(3)
    return tuple(4 * torch.randn(3, 5, dtype=torch.float64, generator=generator) for _ in range(2))


def test_match_the_formulas(logits):
    pairs = [(softmax(s), softmax(t)) for s, t in zip(*(x.tolist() for x in logits), strict=True)]
    crossed = [-sum(t * math.log(s) for s, t in zip(*pair, strict=True)) for pair in pairs]
    entropy = [-sum(t * math.log(t) for t in teacher) for _, teacher in pairs]
    assert cross_entropy(*logits).item() == pytest.approx(sum(crossed) / 3, rel=1e-12)
    assert kl_divergence(*logits).item() == pytest.approx((sum(crossed) - sum(entropy)) / 3, rel=1e-12)


def test_both_have_the_same_gradient(logits):
    student, teacher = logits[0].requires_grad_(), logits[1]
    torch.testing.assert_close(
        torch.autograd.grad(kl_divergence(student, teacher), student),
        torch.autograd.grad(cross_entropy(student, teacher), student),
    )


@given(shift=st.floats(-50, 50), other=st.floats(-50, 50))
def test_a_common_offset_of_a_row_does_not_matter(shift, other):
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(kl_divergence(student + shift, teacher + other), kl_divergence(student, teacher))
