from __future__ import annotations

import numpy as np
import pytest

from distilvl.evaluation.embeddings import checked_embeddings
from distilvl.evaluation.protocols import retrieve
from distilvl.evaluation.score import PositiveRanks, positive_ranks


def test_r_precision_and_map_at_r_by_hand():
    """Query 0: right at places 1 and 3 of R = 3. Query 1: R = 1, place 2. Query 2: R = 2, one is not in the gallery."""
    found = PositiveRanks([np.array([1, 3, 9]), np.array([2]), np.array([2])], np.array([3, 1, 2]))
    precision = found.precision()
    assert precision.r_precision == pytest.approx(100 * (2 / 3 + 0 + 1 / 2) / 3)
    assert precision.map_at_r == pytest.approx(100 * ((1 / 1 + 2 / 3) / 3 + 0 + (1 / 2) / 2) / 3)
    assert (found.recalls().r1, found.recalls().r5) == pytest.approx((100 / 3, 100))


def test_a_query_without_right_answers_in_the_gallery_counts_as_missed():
    found = PositiveRanks([np.array([], dtype=np.int64), np.array([1])], np.array([4, 1]))
    assert found.recalls().r10 == found.precision().map_at_r == 50


def test_ranks_of_all_right_answers_by_hand():
    queries = np.array([[1.0, 0], [0, 1]])
    angles = np.radians([10, 20, 30, 40, 50, 60])
    items = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = positive_ranks(
        checked_embeddings(queries, "q"), checked_embeddings(items, "i"), [np.array([5, 1]), np.array([3, 5])]
    )
    assert [ranks.tolist() for ranks in found.ranks] == [[2, 6], [1, 3]]


def test_a_wrong_item_that_ties_is_placed_first():
    items = np.array([[1.0, 0], [2, 0], [0, 1]])
    found = positive_ranks(
        checked_embeddings(np.eye(2), "q"), checked_embeddings(items, "i"), [np.array([0]), np.array([2])]
    )
    assert [ranks.tolist() for ranks in found.ranks] == [[2], [1]]


def test_first_places_agree_with_the_fast_ranks():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(30, 8))
    owner = rng.permutation(np.append(np.arange(30), rng.integers(30, size=60)))
    texts = images[owner] + rng.normal(size=(90, 8))
    own = [np.flatnonzero(owner == k) for k in range(30)]
    found = positive_ranks(checked_embeddings(images, "i"), checked_embeddings(texts, "t"), own)
    fast = retrieve(images, texts, owner)
    assert [int(ranks[0]) for ranks in found.ranks] == fast.ranks.image.tolist()
    assert fast.precision[1].map_at_r == fast.precision[1].r_precision == fast.score.text_to_image.r1
