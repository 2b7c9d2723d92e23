from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilvl.evaluation import ranks
from distilvl.evaluation.embeddings import Embeddings, checked_embeddings
from distilvl.evaluation.ranks import TIE_TOLERANCE, recall_at, retrieval_ranks, single_error, threads


def brute_force(images, texts, owner):
    """All cosines in double precision, one comparison at a time."""
    x, y = images.astype(np.float64), texts.astype(np.float64)
    x, y = x / np.sqrt((x * x).sum(1))[:, None], y / np.sqrt((y * y).sum(1))[:, None]
    cosine = np.array([[float((a * b).sum()) for b in y] for a in x])
    image_ranks, text_ranks = [], []
    for i in range(len(x)):
        best = max(cosine[i, j] for j in range(len(y)) if owner[j] == i)
        ahead = [j for j in range(len(y)) if owner[j] != i and cosine[i, j] >= best - TIE_TOLERANCE]
        image_ranks.append(1 + len(ahead))
    for j in range(len(y)):
        ahead = [i for i in range(len(x)) if i != owner[j] and cosine[i, j] >= cosine[owner[j], j] - TIE_TOLERANCE]
        text_ranks.append(1 + len(ahead))
    return image_ranks, text_ranks


def random_gallery(seed):
    """Small galleries of every kind: one caption or uneven, shuffled, ties, copies, near copies, three types."""
    rng = np.random.default_rng(seed)
    n, width = int(rng.integers(4, 14)), int(rng.integers(3, 40))
    counts = np.ones(n, int) if seed % 4 == 0 else rng.integers(1, 7, n)
    owner = rng.permutation(np.repeat(np.arange(n), counts))
    images = rng.normal(size=(n, width))
    texts = images[owner] + rng.choice([0.1, 1.0, 3.0]) * rng.normal(size=(len(owner), width))
    kind = seed % 5
    if kind == 1:  # few different values: ties everywhere, zero rows avoided
        images, texts = np.sign(np.round(images)), np.sign(np.round(texts))
        images[:, 0], texts[:, 0] = 1, 2
        images[0, 1], texts[0, 1] = 2, 3  # not all the same
    elif kind == 2:  # copies at other places and of other lengths
        images[n // 2] = 2 * images[0]
        texts[-1] = texts[0]
    elif kind == 3:  # all within float32's rounding of each other, but not of double precision
        images, texts = 1 + 1e-5 * images, 1 + 1e-5 * texts
    return images.astype(rng.choice([np.float16, np.float32, np.float64]) if kind != 3 else np.float64), texts, owner


def ranks_of(images, texts, owner):
    found = retrieval_ranks(checked_embeddings(images, "images"), checked_embeddings(texts, "texts"), owner)
    return [part.tolist() for part in found]


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_equal_to_brute_force_on_200_random_galleries(first):
    for seed in range(first, first + 20):
        gallery = random_gallery(seed)
        assert ranks_of(*gallery) == list(brute_force(*gallery)), seed


@pytest.mark.parametrize(("block", "tile"), [(1, 1), (50, 7), (200, 2**18)])
def test_the_cut_into_blocks_and_tiles_changes_nothing(monkeypatch, block, tile):
    galleries = [random_gallery(seed) for seed in range(20)]
    expected = [ranks_of(*gallery) for gallery in galleries]
    monkeypatch.setattr(ranks, "BLOCK", block)
    monkeypatch.setattr(ranks, "TILE", tile)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [ranks_of(*gallery) for gallery in galleries] == expected


def near_ties(seed=0, n=40, width=64):
    """Right answers with rivals above, at and below by less than float32 can tell."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, width))
    texts = np.repeat(images, 3, axis=0) + rng.normal(size=(3 * n, width))
    images[1::2] = images[::2] * (1 + rng.choice([0, 1e-8, -1e-8, 1e-7, 1e-12], size=(n // 2, width)))
    return images, texts, np.repeat(np.arange(n), 3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_close_calls_are_decided_in_double_precision_one_by_one_or_by_the_block(monkeypatch, share):
    """With share 1 every close call is looked at by itself; with 0 blocks with more than a few are computed again."""
    monkeypatch.setattr(ranks, "CLOSE_SHARE", share)
    doubled = []
    whole = Embeddings.exact
    monkeypatch.setattr(Embeddings, "exact", lambda *a: doubled.append(1) or whole(*a))
    gallery = near_ties()
    assert ranks_of(*gallery) == list(brute_force(*gallery))
    assert bool(doubled) == (share == 0)


def test_float32_alone_would_be_wrong_there():
    images, texts, owner = near_ties()
    single = images.astype(np.float32) @ texts.astype(np.float32).T
    own = single[owner, np.arange(len(owner))]
    naive = 1 + ((single >= own) & (owner != np.arange(len(images))[:, None])).sum(0)
    assert naive.tolist() != ranks_of(images, texts, owner)[1]


@given(seed=st.integers(0, 10**6), width=st.sampled_from([3, 64, 768]), same_sign=st.booleans())
@settings(max_examples=20)
def test_float32_products_err_by_less_than_the_bound(seed, width, same_sign):
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(8, width)), rng.normal(size=(8, width))
    if same_sign:
        images, texts = 1 + 0.01 * np.abs(images), 1 + 0.01 * np.abs(texts)
    a, b = checked_embeddings(images, "a"), checked_embeddings(texts, "b")
    error = np.abs(a.unit @ b.unit.T - a.exact() @ b.exact().T)
    assert error.max() < single_error(width)


def test_a_tie_counts_against_the_model():
    images = np.array([[1.0, 0], [1, 0], [0, 1]])
    assert ranks_of(images, images, np.arange(3)) == [[2, 2, 1], [2, 2, 1]]


def test_other_captions_of_the_image_are_not_wrong():
    images, texts = np.eye(2), np.eye(2)[[0, 0, 0, 1]]
    assert ranks_of(images, texts, np.array([0, 0, 0, 1])) == [[1, 1], [1, 1, 1, 1]]


def test_ranks_by_hand():
    images = np.array([[1.0, 0], [0, 1]])
    texts = np.array([[3.0, 4], [1, 0], [5, 12]])  # cosines .6 .8 / 1 0 / .385 .923
    # Image 0 owns texts 0 and 2: text 1 is ahead of both. Image 1 owns text 1, its worst.
    assert ranks_of(images, texts, np.array([0, 1, 0])) == [[2, 3], [2, 2, 2]]


def test_copies_tie_wherever_they_lie(monkeypatch):
    """Two different rows at many positions of awkward block sizes: everything ties, so everyone comes last."""
    rng = np.random.default_rng(0)
    two = rng.normal(size=(2, 257)).astype(np.float32)
    images, texts = np.repeat(two[:1], 37, axis=0), np.repeat(two[1:], 111, axis=0)
    images, texts = np.concatenate([images, two[:1] * 3]), np.concatenate([texts, two[1:] * 7])
    images[-1], texts[-1] = -images[0], -texts[0]
    monkeypatch.setattr(ranks, "BLOCK", 112 * 5)
    owner = np.append(np.arange(111) % 37, 37)
    image_ranks, text_ranks = ranks_of(images, texts, owner)
    sign = np.sign((two[0] * two[1]).sum())
    if sign > 0:  # the opposite text is every image's worst; the opposite pair has each other
        assert set(image_ranks[:-1]) == {1 + 108}
        assert set(text_ranks[:-1]) == {37}
    else:
        assert set(image_ranks[:-1]) == {1 + 108 + 1}
        assert set(text_ranks[:-1]) == {38}
    assert (image_ranks[-1], text_ranks[-1]) == ((1, 1) if sign > 0 else (112, 38))


def test_recall_counts_ranks_up_to_k():
    found = np.array([1, 5, 6, 11])
    assert [recall_at(found, k) for k in (1, 5, 10)] == [25, 50, 75]


def test_threads_follow_the_limit_of_blas(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "lots")
    assert threads() >= 1
