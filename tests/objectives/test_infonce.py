from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives import InfoNCE


def by_hand(z_image, z_text, ids, tau):
    """CLIP's loss with Python floats, without columns of the same image."""
    g = ids.tolist()

    def direction(a, b):
        total = 0.0
        for i, ai in enumerate(a):
            dots = {j: sum(x * y for x, y in zip(ai, bj, strict=True)) for j, bj in enumerate(b)}
            seen = [j for j in dots if j == i or g[j] != g[i]]
            total -= math.log(math.exp(dots[i] / tau) / sum(math.exp(dots[j] / tau) for j in seen))
        return total / len(a)

    images, texts = z_image.tolist(), z_text.tolist()
    return (direction(images, texts) + direction(texts, images)) / 2


IDS = torch.tensor([0, 1, 0, 2])


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_matches_the_formula(unit_rows, tau):
    rows = unit_rows(4, 5, 1), unit_rows(4, 5, 2)
    assert InfoNCE(tau)(*rows, IDS).item() == pytest.approx(by_hand(*rows, IDS, tau), rel=1e-12)


def test_gradcheck(unit_rows):
    rows = unit_rows(4, 5, 1).requires_grad_(), unit_rows(4, 5, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: InfoNCE(0.2)(a, b, IDS), rows)


def test_rows_of_the_same_image_are_never_negatives(unit_rows):
    rows = unit_rows(2, 5, 1).requires_grad_(), unit_rows(2, 5, 2).requires_grad_()
    loss = InfoNCE()(*rows, torch.tensor([3, 3]))
    loss.backward()
    assert loss.item() == 0
    for leaf in rows:
        assert torch.count_nonzero(leaf.grad) == 0


@given(seed=st.integers(0, 1000))
def test_order_of_the_batch_and_of_the_modalities_does_not_matter(unit_rows, seed):
    a, b = unit_rows(4, 5, seed), unit_rows(4, 5, seed + 1)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    loss = InfoNCE()
    torch.testing.assert_close(loss(a, b, IDS), loss(b[order], a[order], IDS[order]))


def test_half_precision_input_gives_a_float32_loss(unit_rows):
    loss = InfoNCE()(unit_rows(4, 5, 1).bfloat16(), unit_rows(4, 5, 2).bfloat16(), IDS)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
