from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import DynamicContrastiveDistillation

IDS = torch.tensor([0, 1, 0, 2, 3, 4])


def softmax(values):
    powers = [math.exp(v) for v in values]
    return [p / sum(powers) for p in powers]


def by_hand(z_image, z_text, u_image, u_text, ids, tau, hard_negatives, alpha):
    """The formula of the docstring with Python floats and a sort."""
    g = ids.tolist()
    n = len(g)

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def direction(za, zb, ua, ub):
        divergences, own, entropies = [], [], []
        for i in range(n):
            others = sorted((j for j in range(n) if g[j] != g[i]), key=lambda j: -dot(ua[i], ub[j]))
            chosen = [i, *others[:hard_negatives]]
            teacher = softmax([dot(ua[i], ub[j]) / tau for j in chosen])
            student = softmax([dot(za[i], zb[j]) / tau for j in chosen])
            divergences.append(sum(t * math.log(t / s) for s, t in zip(student, teacher, strict=True)))
            own.append(-math.log(student[0]))
            entropies.append(-sum(t * math.log(t) for t in teacher))
        difficulty = [e / sum(entropies) for e in entropies]
        confidence = softmax([(1 - d) ** 2 for d in difficulty])
        soft = sum(c * d for c, d in zip(confidence, divergences, strict=True))
        hard = sum(d * o for d, o in zip(difficulty, own, strict=True))
        return alpha * soft + (1 - alpha) * hard

    zv, zt, uv, ut = (x.tolist() for x in (z_image, z_text, u_image, u_text))
    return (direction(zv, zt, uv, ut) + direction(zt, zv, ut, uv)) / 2


@pytest.mark.parametrize("hard_negatives", [1, 3, 7])  # 7 is more than any row has
@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_matches_the_formula(features, hard_negatives, alpha):
    rows = features(6)
    loss = DynamicContrastiveDistillation(0.2, hard_negatives, alpha)(*rows, IDS)
    assert loss.item() == pytest.approx(by_hand(*rows, IDS, 0.2, hard_negatives, alpha), rel=1e-10)


def test_gradcheck(features):
    zv, zt, uv, ut = features(6)
    loss = DynamicContrastiveDistillation(0.3, 2)
    assert torch.autograd.gradcheck(
        lambda zv, zt: loss(zv, zt, uv, ut, IDS), (zv.requires_grad_(), zt.requires_grad_())
    )


def test_distillation_term_is_zero_for_the_teachers_rows(features):
    _, _, uv, ut = features(6)
    loss = DynamicContrastiveDistillation(hard_negatives=3, alpha=1.0)(uv, ut, uv, ut, IDS)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_the_teacher_and_not_the_student_chooses(features):
    """Only the chosen texts of an image get a gradient from the hard-label term."""
    zv, zt, uv, ut = features(6)
    similarity = (uv @ ut.T).masked_fill(IDS[:, None] == IDS[None, :], -torch.inf)
    z = zt.clone().requires_grad_()
    student = zv @ z.T
    loss = DynamicContrastiveDistillation(0.2, 1, 0.0)
    (gradient,) = torch.autograd.grad(loss._direction(student / 0.2, uv @ ut.T / 0.2, similarity > -torch.inf), student)
    expected = torch.eye(6, dtype=torch.bool)
    expected[torch.arange(6), similarity.argmax(dim=1)] = True
    assert torch.equal(gradient != 0, expected)


def test_rows_that_the_teacher_is_unsure_of_are_learned_from_the_pairs(features):
    """One row has two texts that are equally good to the teacher, the others are certain: it gets all the weight."""
    zv, zt, _, _ = features(4)
    uv = torch.eye(4, dtype=torch.float64)
    ut = uv.clone()
    ut[1] = ut[0]
    student = (zv @ zt.T / 0.05).requires_grad_()
    negative = ~torch.eye(4, dtype=torch.bool)
    DynamicContrastiveDistillation(0.05, 3, 0.0)._direction(student, uv @ ut.T / 0.05, negative).backward()
    pushed = student.grad.abs().sum(dim=1)
    assert pushed[0] > 0.1
    assert pushed[2:].max() < 1e-6


@pytest.mark.parametrize("ids", [[3, 3], [3]])
def test_no_negative_gives_exactly_zero_and_a_zero_gradient(features, ids):
    rows = [x[: len(ids)].requires_grad_() for x in features(6)]
    loss = DynamicContrastiveDistillation()(*rows, torch.tensor(ids))
    loss.backward()
    assert loss.item() == 0
    assert all(torch.count_nonzero(row.grad) == 0 for row in rows[:2])


@given(seed=st.integers(0, 1000))
def test_order_of_the_batch_and_of_the_modalities_does_not_matter(features, seed):
    zv, zt, uv, ut = features(6, 4, seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    loss = DynamicContrastiveDistillation(hard_negatives=2)
    value = loss(zv, zt, uv, ut, IDS)
    assert value >= 0
    torch.testing.assert_close(value, loss(zt[order], zv[order], ut[order], uv[order], IDS[order]))


def test_half_precision_identical_rows_give_a_finite_float32_loss(features):
    loss = DynamicContrastiveDistillation()(*(x[:1].expand(6, 4).bfloat16() for x in features(6)), IDS)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
