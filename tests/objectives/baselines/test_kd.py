from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import DecoupledDistillation, SoftTargetDistillation

IDS = torch.tensor([0, 1, 0, 2, 3])


def by_hand(z_image, z_text, u_image, u_text, tau):
    """KL of zero-shot probabilities, whose classes are the teacher's rows of the other modality."""

    def probabilities(row, classes):
        powers = [math.exp(sum(a * b for a, b in zip(row, c, strict=True)) / tau) for c in classes]
        return [p / sum(powers) for p in powers]

    def direction(z, u, classes):
        total = 0.0
        for zi, ui in zip(z, u, strict=True):
            student, teacher = probabilities(zi, classes), probabilities(ui, classes)
            total += sum(t * (math.log(t) - math.log(s)) for s, t in zip(student, teacher, strict=True))
        return total / len(z)

    zv, zt, uv, ut = (x.tolist() for x in (z_image, z_text, u_image, u_text))
    return direction(zv, uv, ut) + direction(zt, ut, uv)


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_matches_the_formula(features, tau):
    rows = features()
    assert SoftTargetDistillation(tau)(*rows, IDS).item() == pytest.approx(by_hand(*rows, tau), rel=1e-10)


def test_gradcheck(features):
    rows = tuple(x.requires_grad_() for x in features(4))
    assert torch.autograd.gradcheck(lambda *rows: SoftTargetDistillation(0.3)(*rows, IDS[:4]), rows)


def test_is_zero_with_zero_gradient_for_the_teachers_rows(features):
    _, _, u_image, u_text = features()
    z = u_image.clone().requires_grad_(), u_text.clone().requires_grad_()
    loss = SoftTargetDistillation()(*z, u_image, u_text, IDS)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert all(leaf.grad.abs().max() < 1e-12 for leaf in z)


@given(seed=st.integers(0, 1000))
def test_never_negative_and_blind_to_the_order_of_rows_and_modalities(features, seed):
    zv, zt, uv, ut = features(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    loss = SoftTargetDistillation()
    value = loss(zv, zt, uv, ut, IDS)
    assert value >= 0
    torch.testing.assert_close(value, loss(zt[order], zv[order], ut[order], uv[order], IDS[order]))


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_gradient_keeps_the_size_of_the_tasks_gradient_at_its_temperature(features, tau):
    """Why no factor T^2: with a one-hot teacher the gradient is exactly that of the hard loss at the same tau."""
    zv, zt, _, _ = features(4)
    basis = torch.eye(4, dtype=torch.float64)
    zv.requires_grad_()
    soft = SoftTargetDistillation(tau)(zv, zt, basis * 40, basis, IDS[:4])
    hard = torch.nn.functional.cross_entropy(zv @ basis / tau, torch.arange(4))
    torch.testing.assert_close(torch.autograd.grad(soft, zv), torch.autograd.grad(hard, zv))


def test_half_precision_identical_rows_give_a_finite_float32_loss(features):
    rows = [x[:1].expand(5, 4).bfloat16() for x in features()]
    loss = SoftTargetDistillation()(*rows, IDS)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def decoupled_by_hand(z_image, z_text, u_image, u_text, tau, alpha, beta):
    """Target against others, and the others among themselves; other rows of the own image are nobody's class."""
    g = IDS.tolist()

    def kl(p, q):
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    def split(i, row, classes):
        powers = [math.exp(sum(a * b for a, b in zip(row, c, strict=True)) / tau) for c in classes]
        others = [power for power, image in zip(powers, g, strict=True) if image != g[i]]
        whole = powers[i] + sum(others)
        return [powers[i] / whole, sum(others) / whole], [one / sum(others) for one in others]

    def direction(z, u, classes):
        total = 0.0
        for i, (zi, ui) in enumerate(zip(z, u, strict=True)):
            (student, student_others), (teacher, teacher_others) = split(i, zi, classes), split(i, ui, classes)
            total += alpha * kl(teacher, student) + beta * kl(teacher_others, student_others)
        return total / len(z)

    zv, zt, uv, ut = (x.tolist() for x in (z_image, z_text, u_image, u_text))
    return direction(zv, uv, ut) + direction(zt, ut, uv)


@pytest.mark.parametrize(("tau", "alpha", "beta"), [(0.05, 1, 8), (0.5, 1, 8), (0.5, 2, 0), (0.5, 0, 1)])
def test_decoupled_matches_the_formula(features, tau, alpha, beta):
    rows, loss = features(), DecoupledDistillation(tau, alpha, beta)
    assert loss(*rows, IDS).item() == pytest.approx(decoupled_by_hand(*rows, tau, alpha, beta), rel=1e-9)


def test_both_parts_of_decoupled_make_kd_where_the_others_count_as_much_as_the_teacher_gives_them(features):
    # Two images: all rows of the others' part are of one class, so that KD is the target's part alone.
    rows = [x[:2] for x in features()]
    ids = torch.arange(2)
    found = DecoupledDistillation(0.3, alpha=1, beta=8)(*rows, ids)
    torch.testing.assert_close(found, SoftTargetDistillation(0.3)(*rows, ids))


def test_decoupled_gradcheck(features):
    rows = tuple(x.requires_grad_() for x in features(4))
    assert torch.autograd.gradcheck(lambda *rows: DecoupledDistillation(0.3)(*rows, IDS[:4]), rows)


@given(seed=st.integers(0, 1000))
def test_decoupled_is_never_negative_and_zero_for_the_teachers_rows(features, seed):
    zv, zt, uv, ut = features(seed=seed)
    loss = DecoupledDistillation()
    assert loss(zv, zt, uv, ut, IDS) >= 0
    assert loss(uv, ut, uv, ut, IDS).item() == pytest.approx(0, abs=1e-12)


def test_decoupled_of_one_image_has_nobody_to_tell_it_from(features):
    rows = tuple(x.requires_grad_() for x in features(3))
    loss = DecoupledDistillation()(*rows, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not rows[0].grad.any()
