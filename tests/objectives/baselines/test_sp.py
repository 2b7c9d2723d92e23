from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives.baselines import SimilarityPreserving

IDS = torch.tensor([0, 1, 0, 2, 3])


def by_hand(*rows):
    def similarities(x):
        gram = [[sum(v * w for v, w in zip(a, b, strict=True)) for b in x] for a in x]
        return [[one / math.sqrt(sum(v * v for v in row)) for one in row] for row in gram]

    zv, zt, uv, ut = (x.tolist() for x in rows)
    total = 0.0
    for z, u in ((zv, uv), (zt, ut)):
        mine, theirs = similarities(z), similarities(u)
        total += sum((mine[i][j] - theirs[i][j]) ** 2 for i in range(len(z)) for j in range(len(z))) / len(z) ** 2
    return total


def test_matches_the_formula(features):
    rows = features()
    assert SimilarityPreserving()(*rows, IDS).item() == pytest.approx(by_hand(*rows), rel=1e-12)


def test_gradcheck(features):
    rows = tuple(x.requires_grad_() for x in features())
    assert torch.autograd.gradcheck(lambda *rows: SimilarityPreserving()(*rows, IDS), rows)


@given(seed=st.integers(0, 1000))
def test_turned_spaces_are_as_alike_as_before(features, seed):
    zv, zt, uv, ut = features(dim=4, seed=seed)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    loss = SimilarityPreserving()
    torch.testing.assert_close(loss(zv @ turn, zt @ turn, uv, ut, IDS), loss(zv, zt, uv, ut, IDS))
    assert loss(uv @ turn, ut, uv, ut, IDS).item() == pytest.approx(0, abs=1e-15)
