from __future__ import annotations

import pytest
import torch

from distilvl.objectives import FeatureDistillation


def test_matches_the_formula(unit_rows):
    z, u = unit_rows(4, 5, 1), unit_rows(4, 5, 2)
    expected = sum(
        abs(a - b) for zi, ui in zip(z.tolist(), u.tolist(), strict=True) for a, b in zip(zi, ui, strict=True)
    ) / (4 * 5)
    assert FeatureDistillation()(z, u).item() == pytest.approx(expected, rel=1e-12)


def test_gradcheck(unit_rows):
    rows = unit_rows(3, 4, 1).requires_grad_(), unit_rows(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(FeatureDistillation(), rows)


def test_is_zero_for_equal_rows(unit_rows):
    assert FeatureDistillation()(unit_rows(3, 4, 1), unit_rows(3, 4, 1)).item() == 0


def test_half_precision_input_gives_a_float32_loss(unit_rows):
    loss = FeatureDistillation()(unit_rows(3, 4, 1).bfloat16(), unit_rows(3, 4, 2).bfloat16())
    assert loss.dtype == torch.float32
    assert loss.isfinite()
