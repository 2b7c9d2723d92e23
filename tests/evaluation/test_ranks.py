from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.evaluation import ranks
from distilvl.evaluation.ranks import recall_at, retrieval_ranks, unit_rows


def by_hand(images, texts, owner):
    """One comparison at a time, exact for the small integers it is fed."""

    def dot(a, b):
        return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))

    image_ranks, text_ranks = [], []
    for i, image in enumerate(images):
        scores = [dot(image, text) for text in texts]
        best = max(s for s, o in zip(scores, owner, strict=True) if o == i)
        image_ranks.append(1 + sum(s >= best for s, o in zip(scores, owner, strict=True) if o != i))
    for text, o in zip(texts, owner, strict=True):
        scores = [dot(text, image) for image in images]
        text_ranks.append(1 + sum(s >= scores[o] for i, s in enumerate(scores) if i != o))
    return image_ranks, text_ranks


@st.composite
def galleries(draw):
    n, dim = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    owner = list(range(n)) + draw(st.lists(st.integers(0, n - 1), max_size=8))
    owner = draw(st.permutations(owner))
    coordinate = st.integers(-2, 2)  # few values: ties are frequent
    rows = st.lists(coordinate, min_size=dim, max_size=dim)
    images = draw(st.lists(rows, min_size=n, max_size=n))
    texts = draw(st.lists(rows, min_size=len(owner), max_size=len(owner)))
    return np.array(images, dtype=np.float32), np.array(texts, dtype=np.float32), np.array(owner)


@pytest.mark.parametrize("block", [1, 7, 2**22])
@given(gallery=galleries())
def test_matches_brute_force_with_ties(block, gallery):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "BLOCK", block)
        image_ranks, text_ranks = retrieval_ranks(*gallery)
    expected = by_hand(*gallery)
    assert (image_ranks.tolist(), text_ranks.tolist()) == expected


def test_a_tie_counts_against_the_model():
    images, texts = np.eye(2)[[0, 0]], np.eye(2)[[0, 0]]
    image_ranks, text_ranks = retrieval_ranks(images, texts, np.array([0, 1]))
    assert image_ranks.tolist() == text_ranks.tolist() == [2, 2]


def test_other_captions_of_the_image_are_not_wrong():
    images, texts = np.eye(2), np.eye(2)[[0, 0, 0, 1]]
    image_ranks, text_ranks = retrieval_ranks(images, texts, np.array([0, 0, 0, 1]))
    assert image_ranks.tolist() == [1, 1]
    assert text_ranks.tolist() == [1, 1, 1, 1]


def test_copies_tie_wherever_they_lie(monkeypatch):
    """The same rows at many positions of awkward block sizes: everything ties, so everyone comes last."""
    rng = np.random.default_rng(0)
    images = np.repeat(unit_rows(rng.normal(size=(1, 257)).astype(np.float32)), 37, axis=0)
    texts = np.repeat(unit_rows(rng.normal(size=(1, 257)).astype(np.float32)), 111, axis=0)
    monkeypatch.setattr(ranks, "BLOCK", 111 * 5)
    image_ranks, text_ranks = retrieval_ranks(images, texts, np.arange(111) % 37)
    assert set(image_ranks.tolist()) == {1 + 108}
    assert set(text_ranks.tolist()) == {37}


def test_recall_counts_ranks_up_to_k():
    ranks_of = np.array([1, 5, 6, 11])
    assert [recall_at(ranks_of, k) for k in (1, 5, 10)] == [25, 50, 75]
