from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import RelationalAngle, RelationalDistance

IDS = torch.tensor([0, 1, 0, 2, 3])
BOTH = [RelationalDistance(), RelationalAngle()]


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def length(a):
    return math.sqrt(sum(x * x for x in a))


def huber(d):
    return d * d / 2 if abs(d) < 1 else abs(d) - 0.5


def distances(x):
    n = len(x)
    d = [[length(minus(a, b)) for b in x] for a in x]
    mean = sum(map(sum, d)) / (n * (n - 1))
    return [d[i][j] / mean for i in range(n) for j in range(n)]


def angles(x):
    def unit(a, b):
        difference = minus(a, b)
        return [v / length(difference) for v in difference] if length(difference) > 0 else difference

    def cosine(a, middle, c):
        return sum(v * w for v, w in zip(unit(a, middle), unit(c, middle), strict=True))

    return [cosine(a, middle, c) for middle in x for a in x for c in x]


def by_hand(relation, *rows):
    zv, zt, uv, ut = (x.tolist() for x in rows)
    total = 0.0
    for z, u in ((zv, uv), (zt, ut)):
        hubers = [huber(a - b) for a, b in zip(relation(z), relation(u), strict=True)]
        total += sum(hubers) / len(hubers)
    return total


@pytest.mark.parametrize(("loss", "relation"), [(BOTH[0], distances), (BOTH[1], angles)])
@pytest.mark.parametrize("stretch", [1, 30])
def test_matches_the_formula(features, loss, relation, stretch):
    zv, zt, uv, ut = features()
    zv = zv * torch.tensor([stretch, 1, 1, 1, 1])[:, None]  # one far row takes the Huber loss past its bend
    assert loss(zv, zt, uv, ut, IDS).item() == pytest.approx(by_hand(relation, zv, zt, uv, ut), rel=1e-10)


@pytest.mark.parametrize(
    ("loss", "images", "texts"),
    [
        (BOTH[0], 0.007413117208673389, 0.04664128016555653),
        (BOTH[1], 0.011560720225916978, 0.036727599645973184),
    ],
)
def test_matches_torchdistill(wave_rows, loss, images, texts):
    """torchdistill 1.1.5, `RKDLoss(..., reduction="mean").compute_rkd_distance_loss(u, z)` and `..._angle_loss`."""
    rows = [wave_rows(6, 5, phase) for phase in (1.0, 3.0, 2.0, 4.0)]
    assert loss(*rows, torch.arange(6)).item() == pytest.approx(images + texts, rel=1e-12)


@pytest.mark.parametrize("loss", BOTH)
def test_gradcheck(features, loss):
    rows = tuple(x.requires_grad_() for x in features())
    assert torch.autograd.gradcheck(lambda *rows: loss(*rows, IDS), rows)


@pytest.mark.parametrize("loss", BOTH)
def test_is_zero_for_the_teachers_rows(features, loss):
    _, _, uv, ut = features()
    assert loss(uv, ut, uv, ut, IDS).item() == 0


@pytest.mark.parametrize("loss", BOTH)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_rotation_shift_and_scale_of_the_students_space_do_not_matter(features, loss, seed, scale):
    zv, zt, uv, ut = features(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    shift = torch.randn(4, dtype=torch.float64, generator=generator)
    moved = scale * zv @ rotation + shift
    torch.testing.assert_close(loss(moved, zt, uv, ut, IDS), loss(zv, zt, uv, ut, IDS))


@pytest.mark.parametrize("loss", BOTH)
@given(seed=st.integers(0, 1000))
def test_order_of_the_batch_does_not_matter(features, loss, seed):
    rows = features(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(*(x[order] for x in rows), IDS), loss(*rows, IDS))


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize("same", [2, 5])
def test_coinciding_rows_give_finite_and_small_gradients(features, loss, same):
    """Captions of one image give the same image row several times, or all rows collapse."""
    zv, zt, uv, ut = (x.float() for x in features())
    zv[:same] = zv[0]
    zv.requires_grad_()
    value = loss(zv, zt, uv, ut, IDS)
    (gradient,) = torch.autograd.grad(value, zv)
    assert value.isfinite()
    assert gradient.abs().max() < 10


@pytest.mark.parametrize("loss", BOTH)
def test_a_single_row_has_no_relations(features, loss):
    rows = [x[:1].requires_grad_() for x in features()]
    value = loss(*rows, IDS[:1])
    value.backward()
    assert value.item() == 0
    assert torch.count_nonzero(rows[0].grad) == 0


@pytest.mark.parametrize("loss", BOTH)
def test_half_precision_input_gives_a_finite_float32_loss(features, loss):
    value = loss(*(x.bfloat16() for x in features()), IDS)
    assert value.dtype == torch.float32
    assert value.isfinite()
