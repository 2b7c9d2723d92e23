from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from distilvl.errors import DistilvlError
from distilvl.evaluation import agreement as agree
from distilvl.evaluation.agreement import linear_cka, modality_gap
from distilvl.evaluation.embeddings import checked_embeddings


def models(seed=0, images=30, texts=45, widths=(8, 8), noise=0.5):
    rng = np.random.default_rng(seed)
    teacher = [rng.normal(size=(count, widths[1])) for count in (images, texts)]
    mix = rng.normal(size=(widths[1], widths[0])) if widths[0] != widths[1] else np.eye(widths[0])
    return [part @ mix + noise * rng.normal(size=(len(part), widths[0])) for part in teacher], teacher


def unit(x):
    return x / np.sqrt((x * x).sum(1))[:, None]


def test_all_measures_against_plain_formulas():
    student, teacher = models()
    found = agree(tuple(student), tuple(teacher))
    (si, st), (ti, tt) = map(unit, student), map(unit, teacher)
    for way, (ours, theirs) in enumerate([(si @ st.T, ti @ tt.T), (st @ si.T, tt @ ti.T)]):
        overlaps = [
            len(set(np.argsort(-a)[:10]) & set(np.argsort(-b)[:10])) / 10 for a, b in zip(ours, theirs, strict=True)
        ]
        assert found.overlap[way] == pytest.approx(np.mean(overlaps))
        rho = [spearmanr(a, b).statistic for a, b in zip(ours, theirs, strict=True)]
        assert found.rank_correlation[way] == pytest.approx(np.mean(rho))
    assert found.cosine == pytest.approx(((si * ti).sum(1).mean(), (st * tt).sum(1).mean()))
    assert found.modality_gap == pytest.approx(
        (np.linalg.norm(si.mean(0) - st.mean(0)), np.linalg.norm(ti.mean(0) - tt.mean(0)))
    )
    for k, (a, b) in enumerate([(si, ti), (st, tt)]):
        # CKA as the normalised HSIC of the two centred similarity matrices: another road to the same number.
        centre = np.eye(len(a)) - 1 / len(a)
        ka, kb = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
        assert found.cka[k] == pytest.approx((ka * kb).sum() / np.sqrt((ka * ka).sum() * (kb * kb).sum()))


def test_a_model_agrees_with_itself_and_with_its_rotation():
    student, _ = models()
    same = agree(tuple(student), tuple(student))
    assert same.overlap == (1, 1)
    assert same.rank_correlation == pytest.approx((1, 1))
    assert same.cka == pytest.approx((1, 1))
    assert same.cosine == pytest.approx((1, 1))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    turned = agree(tuple(student), tuple(part @ rotation for part in student))
    assert turned.overlap == (1, 1)
    assert turned.cka == pytest.approx((1, 1))
    assert turned.cosine is not None
    assert max(turned.cosine) < 0.9


def test_other_widths_have_no_cosine():
    student, teacher = models(widths=(5, 8))
    found = agree(tuple(student), tuple(teacher))
    assert found.cosine is None
    assert 0 < found.cka[0] < 1


def test_gap_and_cka_by_hand():
    images, texts = checked_embeddings([[1.0, 0], [0, 2]], "i"), checked_embeddings([[-1.0, 0], [0, -1]], "t")
    assert modality_gap(images, texts) == pytest.approx(np.sqrt(2))
    assert linear_cka(images, images) == pytest.approx(1)
    wide = checked_embeddings([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], "w")
    flat = checked_embeddings([[1.0, 0], [-1, 0], [1, 0], [-1, 0]], "f")
    # Xc'Xc = diag(2, 2), Yc'Yc = diag(4, 0), Yc'Xc = (2, 2): 8 / (sqrt(8) * 4).
    assert linear_cka(wide, flat) == pytest.approx(np.sqrt(8) / 4)


def test_other_items_cannot_be_compared():
    student, teacher = models()
    with pytest.raises(DistilvlError, match="30 images and 44 texts cannot be compared"):
        agree((student[0], student[1][:-1]), tuple(teacher))
    with pytest.raises(DistilvlError, match="teacher text features hold NaN"):
        agree(tuple(student), (teacher[0], teacher[1] * np.nan))
