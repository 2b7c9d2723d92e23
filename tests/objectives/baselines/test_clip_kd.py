from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives import InfoNCE
from distilvl.objectives.baselines import ClipKdFeature, ClipKdGradient, ClipKdInteractive, ClipKdRelation

IDS = torch.tensor([0, 1, 0, 2, 3])
PARTS = [ClipKdFeature(), ClipKdRelation(0.3), ClipKdInteractive(0.3), ClipKdGradient(0.3)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def feature_by_hand(zv, zt, uv, ut):
    squares = [sum((a - b) ** 2 for a, b in zip(z, u, strict=True)) for z, u in zip(zv + zt, uv + ut, strict=True)]
    return sum(squares) / len(zv)


def relation_by_hand(zv, zt, uv, ut, tau):
    def distribution(row, others):
        powers = [math.exp(dot(row, other) / tau) for other in others]
        return [p / sum(powers) for p in powers]

    def direction(za, zb, ua, ub):
        total = 0.0
        for zi, ui in zip(za, ua, strict=True):
            for s, t in zip(distribution(zi, zb), distribution(ui, ub), strict=True):
                total += t * math.log(t / s)
        return total / len(za)

    return (direction(zv, zt, uv, ut) + direction(zt, zv, ut, uv)) / 2


def interactive_by_hand(zv, zt, uv, ut, tau):
    g = IDS.tolist()

    def direction(z, u):
        total = 0.0
        for i, zi in enumerate(z):
            seen = [j for j in range(len(u)) if j == i or g[j] != g[i]]
            total -= dot(zi, u[i]) / tau - math.log(sum(math.exp(dot(zi, u[j]) / tau) for j in seen))
        return total / len(z)

    return (direction(zv, ut) + direction(zt, uv)) / 2


def test_feature_part_matches_the_formula(features):
    rows = features()
    expected = feature_by_hand(*(x.tolist() for x in rows))
    assert ClipKdFeature()(*rows, IDS).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_relation_part_matches_the_formula(features, tau):
    rows = features()
    expected = relation_by_hand(*(x.tolist() for x in rows), tau)
    assert ClipKdRelation(tau)(*rows, IDS).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_interactive_part_matches_the_formula(features, tau):
    rows = features()
    expected = interactive_by_hand(*(x.tolist() for x in rows), tau)
    assert ClipKdInteractive(tau)(*rows, IDS).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("part", PARTS)
def test_gradcheck(features, part):
    rows = tuple(x.requires_grad_() for x in features())
    assert torch.autograd.gradcheck(lambda *rows: part(*rows, IDS), rows)


@pytest.mark.parametrize("part", [PARTS[0], PARTS[1], PARTS[3]])
def test_feature_and_relation_parts_are_zero_for_the_teachers_rows(features, part):
    _, _, u_image, u_text = features()
    assert part(u_image, u_text, u_image, u_text, IDS).item() == pytest.approx(0, abs=1e-12)


def test_interactive_part_is_the_teachers_own_task_loss_for_the_teachers_rows(features):
    _, _, u_image, u_text = features()
    loss = ClipKdInteractive()(u_image, u_text, u_image, u_text, IDS)
    torch.testing.assert_close(loss, InfoNCE()(u_image, u_text, IDS))


def test_interactive_part_ignores_other_rows_of_the_anchors_image(features):
    rows = [x[:2] for x in features()]
    assert ClipKdInteractive()(*rows, torch.tensor([3, 3])) == 0


@given(seed=st.integers(0, 1000))
def test_feature_part_of_unit_rows_is_two_minus_twice_the_cosine(features, seed):
    zv, zt, uv, ut = features(seed=seed)
    cosines = (zv * uv).sum(dim=1).mean() + (zt * ut).sum(dim=1).mean()
    torch.testing.assert_close(ClipKdFeature()(zv, zt, uv, ut, IDS), 4 - 2 * cosines)


@given(seed=st.integers(0, 1000))
def test_relation_part_ignores_a_rotation_of_the_students_space(features, seed):
    zv, zt, uv, ut = features(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    loss = ClipKdRelation()
    torch.testing.assert_close(loss(zv @ rotation, zt @ rotation, uv, ut, IDS), loss(zv, zt, uv, ut, IDS))


@pytest.mark.parametrize("part", PARTS)
def test_half_precision_identical_rows_give_a_finite_float32_loss(features, part):
    loss = part(*(x[:1].expand(5, 4).bfloat16() for x in features()), IDS)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_gradient_part_compares_the_gradients_of_the_task(features, tau):
    """Against autograd's gradients of the task's loss, row by row, with the sum of both directions apart."""
    rows = features()

    def pulls(x, y):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        seen = (IDS[:, None] != IDS[None, :]) | torch.eye(5, dtype=torch.bool)
        logits = (x @ y.T / tau).masked_fill(~seen, -torch.inf)
        return torch.autograd.grad(-logits.log_softmax(dim=1).diagonal().sum(), (x, y))

    zv, zt, uv, ut = rows
    expected = 0.0
    for student, teacher in (((zv, zt), (uv, ut)), ((zt, zv), (ut, uv))):
        for mine, theirs in zip(pulls(*student), pulls(*teacher), strict=True):
            expected += float((mine - theirs).square().sum() / 5)
    assert ClipKdGradient(tau)(*rows, IDS).item() == pytest.approx(expected, rel=1e-10)
