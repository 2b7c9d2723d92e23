from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import ClipKdRelation, OpenClipDistillation

IDS = torch.tensor([0, 1, 0, 2, 3])


def by_hand(z_image, z_text, u_image, u_text, tau_s, tau_t):
    """Cross-entropy against the teacher's softmax with Python floats."""

    def distribution(row, others, tau):
        powers = [math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / tau) for other in others]
        return [p / sum(powers) for p in powers]

    def direction(za, zb, ua, ub):
        total = 0.0
        for zi, ui in zip(za, ua, strict=True):
            student, teacher = distribution(zi, zb, tau_s), distribution(ui, ub, tau_t)
            total -= sum(t * math.log(s) for s, t in zip(student, teacher, strict=True))
        return total / len(za)

    zv, zt, uv, ut = (x.tolist() for x in (z_image, z_text, u_image, u_text))
    return (direction(zv, zt, uv, ut) + direction(zt, zv, ut, uv)) / 2


@pytest.mark.parametrize("taus", [(0.05, 0.05), (0.2, 0.1), (0.1, 0.4)])
def test_matches_the_formula(features, taus):
    rows = features()
    assert OpenClipDistillation(*taus)(*rows, IDS).item() == pytest.approx(by_hand(*rows, *taus), rel=1e-10)


def test_matches_open_clip(wave_rows):
    """open_clip_torch 3.3.0: second value of `DistillClipLoss()` with logit scales 1 / 0.05 and 1 / 0.02."""
    rows = [wave_rows(6, 5, phase) for phase in (1.0, 3.0, 2.0, 4.0)]
    loss = OpenClipDistillation(0.05, 0.02)(*rows, torch.arange(6))
    assert loss.item() == pytest.approx(17.956624958833224, rel=1e-12)


def test_gradcheck(features):
    rows = tuple(x.requires_grad_() for x in features())
    assert torch.autograd.gradcheck(lambda *rows: OpenClipDistillation(0.3, 0.2)(*rows, IDS), rows)


@given(seed=st.integers(0, 1000))
def test_is_clip_kds_relation_plus_the_teachers_entropy(features, seed):
    rows = features(seed=seed)
    _, _, uv, ut = rows
    loss = OpenClipDistillation(0.1, 0.1)
    entropy = loss(uv, ut, uv, ut, IDS)
    torch.testing.assert_close(loss(*rows, IDS), ClipKdRelation(0.1)(*rows, IDS) + entropy)
    assert loss(*rows, IDS) >= entropy


def test_half_precision_identical_rows_give_the_logarithm_of_their_number(features):
    loss = OpenClipDistillation()(*(x[:1].expand(5, 4).bfloat16() for x in features()), IDS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(5))
