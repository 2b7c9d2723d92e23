from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives import HardNegativeDistillation


def by_hand(z_image, z_text, u_image, u_text, ids, *, margin=0.0, hardest=True, mask=True):
    """Eq. 10-14 with Python floats, negative by negative."""
    g = ids.tolist()

    def hinges(a, b):
        s = [[sum(x * y for x, y in zip(ai, bj, strict=True)) for bj in b.tolist()] for ai in a.tolist()]
        total = 0.0
        for i in range(len(g)):
            others = [j for j in range(len(g)) if (g[j] != g[i] if mask else j != i)]
            for negatives in ([s[i][j] for j in others], [s[j][i] for j in others]):
                if hardest and negatives:
                    negatives = [max(negatives)]
                total += sum(max(0.0, margin + negative - s[i][i]) for negative in negatives)
        return total

    pairs = [(z_image, u_image), (z_text, u_text), (z_image, u_text), (z_text, u_image)]
    return sum(hinges(a, b) for a, b in pairs)


@pytest.fixture
def rows(unit_rows):
    return tuple(unit_rows(5, 4, seed) for seed in (1, 2, 3, 4))


IDS = torch.tensor([0, 1, 0, 2, 3])


@pytest.mark.parametrize(
    ("margin", "negatives", "mask"),
    list(itertools.product([0.0, 0.2], ["hardest", "all"], [True, False])),
)
def test_matches_the_formula(rows, margin, negatives, mask):
    expected = by_hand(*rows, IDS, margin=margin, hardest=negatives == "hardest", mask=mask)
    total = HardNegativeDistillation(margin, negatives, "sum", mask)(*rows, IDS)
    mean = HardNegativeDistillation(margin, negatives, "mean", mask)(*rows, IDS)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert mean.item() == pytest.approx(expected / 5, rel=1e-12)


@pytest.mark.parametrize("negatives", ["hardest", "all"])
def test_gradcheck(rows, negatives):
    loss = HardNegativeDistillation(0.1, negatives)
    leaves = tuple(row.clone().requires_grad_() for row in rows)
    assert torch.autograd.gradcheck(lambda *leaves: loss(*leaves, IDS), leaves)


def test_rows_of_the_same_image_are_never_negatives(rows):
    """Two captions of one image and nothing else: no negative, so no loss and no gradient."""
    leaves = tuple(row[:2].clone().requires_grad_() for row in rows)
    loss = HardNegativeDistillation(margin=1.0)(*leaves, torch.tensor([7, 7]))
    loss.backward()
    assert loss.item() == 0
    for leaf in leaves:
        assert torch.count_nonzero(leaf.grad) == 0
    assert HardNegativeDistillation(margin=1.0, mask_false_negatives=False)(*rows, IDS) > loss


def test_a_same_image_row_as_hardest_negative_is_passed_over(unit_rows):
    """Row 1 is a copy of row 0, the hardest negative there can be; of its image, it is none."""
    z = unit_rows(2, 4, 1)
    rows = torch.stack([z[0], z[0], z[1]])
    loss = HardNegativeDistillation(margin=0.1, negatives="hardest")
    masked = loss(rows, rows, rows, rows, torch.tensor([5, 5, 6]))
    other_image = loss(rows, rows, rows, rows, torch.tensor([5, 4, 6]))
    assert masked.item() == pytest.approx(by_hand(rows, rows, rows, rows, torch.tensor([5, 5, 6]), margin=0.1))
    assert other_image.item() == pytest.approx(masked.item() + 4 * 2 * 2 * 0.1)


def test_a_row_without_negatives_adds_nothing_to_a_batch_of_one(unit_rows):
    z = unit_rows(1, 4, 1).requires_grad_()
    loss = HardNegativeDistillation(margin=0.5)(z, z, z, z, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert z.grad.isfinite().all()


@given(seed=st.integers(0, 1000))
def test_order_of_the_batch_does_not_matter(unit_rows, seed):
    rows = [unit_rows(6, 4, seed + k) for k in range(4)]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 4, (6,), generator=generator)
    order = torch.randperm(6, generator=generator)
    loss = HardNegativeDistillation(margin=0.1)
    torch.testing.assert_close(loss(*rows, ids), loss(*(row[order] for row in rows), ids[order]))


@given(seed=st.integers(0, 1000), margin=st.floats(0, 1))
def test_all_negatives_weigh_at_least_as_much_as_the_hardest(unit_rows, seed, margin):
    rows = [unit_rows(5, 4, seed + k) for k in range(4)]
    hardest = HardNegativeDistillation(margin, "hardest")(*rows, IDS)
    every = HardNegativeDistillation(margin, "all")(*rows, IDS)
    assert 0 <= hardest <= every + 1e-12


def test_half_precision_input_and_autocast_give_a_float32_loss(rows):
    low = tuple(row.bfloat16() for row in rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = HardNegativeDistillation()(*low, IDS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, HardNegativeDistillation()(*(row.float() for row in low), IDS))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_without_pairs_only_the_terms_within_a_modality_are_left(unit_rows, reduction):
    z_image, u_image = unit_rows(5, 4, 1), unit_rows(5, 4, 2)
    z_text, u_text = unit_rows(3, 4, 3), unit_rows(3, 4, 4)
    loss = HardNegativeDistillation(0.2, reduction=reduction)
    text_ids = torch.tensor([7, 8, 7])
    unpaired = loss(z_image, z_text, u_image, u_text, IDS, text_ids)
    alone = by_hand_within(z_image, u_image, IDS), by_hand_within(z_text, u_text, text_ids)
    expected = sum(alone) if reduction == "sum" else alone[0] / 5 + alone[1] / 3
    assert unpaired.item() == pytest.approx(expected, rel=1e-12)


def by_hand_within(z, u, ids):
    """H(z, u) with margin 0.2 and the hardest negative, in Python floats."""
    s, g, total = (z @ u.T).tolist(), ids.tolist(), 0.0
    for i in range(len(g)):
        others = [j for j in range(len(g)) if g[j] != g[i]]
        for negatives in ([s[i][j] for j in others], [s[j][i] for j in others]):
            total += max(0.0, 0.2 + max(negatives) - s[i][i]) if negatives else 0.0
    return total
