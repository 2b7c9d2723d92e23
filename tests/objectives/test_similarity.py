from __future__ import annotations

import math

import pytest
import torch

from distilvl.objectives import SimilarityDistillation


def mean_cosine(z, u):
    """With Python floats."""
    cosines = []
    for zi, ui in zip(z.tolist(), u.tolist(), strict=True):
        norms = math.sqrt(sum(a * a for a in zi)) * math.sqrt(sum(b * b for b in ui))
        cosines.append(sum(a * b for a, b in zip(zi, ui, strict=True)) / norms)
    return sum(cosines) / len(cosines)


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_matches_both_readings(unit_rows, length):
    z, u = length * unit_rows(4, 5, 1), unit_rows(4, 5, 2)
    cosine = mean_cosine(z, u)
    assert SimilarityDistillation()(z, u).item() == pytest.approx(1 - (1 + cosine) / 2, rel=1e-12)
    assert SimilarityDistillation(halved=False)(z, u).item() == pytest.approx(1 - cosine, rel=1e-12)


def test_gradcheck(unit_rows):
    rows = unit_rows(3, 4, 1).requires_grad_(), unit_rows(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(SimilarityDistillation(), rows)


def test_runs_from_0_for_equal_to_1_for_opposite_rows(unit_rows):
    z = unit_rows(3, 4, 1)
    assert SimilarityDistillation()(z, z).item() == pytest.approx(0, abs=1e-12)
    assert SimilarityDistillation()(z, -z).item() == pytest.approx(1)


def test_half_precision_input_gives_a_float32_loss(unit_rows):
    loss = SimilarityDistillation()(unit_rows(3, 4, 1).bfloat16(), unit_rows(3, 4, 2).bfloat16())
    assert loss.dtype == torch.float32
    assert loss.isfinite()
