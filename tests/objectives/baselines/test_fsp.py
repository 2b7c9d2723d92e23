from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import FlowDistillation

IDS = torch.tensor([0, 1, 0, 2, 3])


def by_hand(z_image, z_text, u_image, u_text):
    """Entry by entry of both Gram matrices."""
    zv, zt, uv, ut = (x.tolist() for x in (z_image, z_text, u_image, u_text))
    n, dim = len(zv), len(zv[0])
    total = 0.0
    for a in range(dim):
        for b in range(dim):
            student = sum(zv[i][a] * zt[i][b] for i in range(n)) / n
            teacher = sum(uv[i][a] * ut[i][b] for i in range(n)) / n
            total += (student - teacher) ** 2
    return total


def test_matches_the_formula(features):
    rows = features()
    assert FlowDistillation()(*rows, IDS).item() == pytest.approx(by_hand(*rows), rel=1e-12)


def test_gram_matrix_matches_torchdistill(wave_rows):
    """torchdistill 1.1.5, `FSPLoss.compute_fsp_matrix` of the rows as maps (1, D, N, 1); squared difference, summed."""
    rows = [wave_rows(6, 5, phase) for phase in (1.0, 3.0, 2.0, 4.0)]
    assert FlowDistillation()(*rows, torch.arange(6)).item() == pytest.approx(0.4410007403730058, rel=1e-12)


def test_gradcheck(features):
    rows = tuple(x.requires_grad_() for x in features())
    assert torch.autograd.gradcheck(lambda *rows: FlowDistillation()(*rows, IDS), rows)


@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_lies_between_0_for_the_teachers_rows_and_4(features, seed, n):
    zv, zt, uv, ut = features(n, 4, seed)
    ids = torch.arange(n)
    assert 0 <= FlowDistillation()(zv, zt, uv, ut, ids) <= 4
    assert FlowDistillation()(uv, ut, uv, ut, ids) == 0


def test_largest_value_is_reached_by_the_opposite_flow(features):
    _, _, uv, ut = (x[:1].expand(5, 4) for x in features())
    assert FlowDistillation()(-uv, ut, uv, ut, IDS).item() == pytest.approx(4)


@given(seed=st.integers(0, 1000))
def test_sees_images_and_texts_only_together(features, seed):
    """The Gram matrix of two modalities is blind to a change of sign of both."""
    zv, zt, uv, ut = features(seed=seed)
    torch.testing.assert_close(FlowDistillation()(zv, zt, uv, ut, IDS), FlowDistillation()(-zv, -zt, uv, ut, IDS))


def test_half_precision_input_gives_a_finite_float32_loss(features):
    loss = FlowDistillation()(*(x.bfloat16() for x in features()), IDS)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
