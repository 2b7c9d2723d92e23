from __future__ import annotations

import itertools

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.evaluation import rank_gallery, score_ranks
from distilvl.evaluation.intervals import MEASURES, compare, intervals
from distilvl.evaluation.score import Ranks


def model(noise, seed=0, images=80):
    """Ranks of one gallery as seen by models of different quality."""
    base, own = np.random.default_rng(0), np.random.default_rng(seed + 100)
    rows = base.normal(size=(images, 16))
    owner = np.repeat(np.arange(images), 2)
    return rank_gallery(rows, rows[owner] + noise * own.normal(size=(2 * images, 16)), owner)


def test_intervals_hold_the_score_and_narrow_with_more_images():
    small, large = model(2.0), model(2.0, images=320)
    score = score_ranks(small)
    found = intervals(small)
    assert tuple(found) == MEASURES
    values = [getattr(way, r) for way in (score.image_to_text, score.text_to_image) for r in ("r1", "r5", "r10")]
    for value, (low, high) in zip([*values, score.rsum], found.values(), strict=True):
        assert low <= value <= high
    assert np.ptp(intervals(large)["i2t_r1"]) < 0.75 * np.ptp(found["i2t_r1"])
    assert intervals(small) == found  # the same seed


def test_interval_of_a_share_is_the_binomial_one():
    """R@1 of 40 out of 100 images: the standard error is sqrt(.4 .6 / 100) = 4.9 points."""
    ranks = np.where(np.arange(100) < 40, 1, 50)
    low, high = intervals(Ranks(ranks, ranks, np.arange(100)))["i2t_r1"]
    assert low == pytest.approx(40 - 1.96 * 4.9, abs=1.5)
    assert high == pytest.approx(40 + 1.96 * 4.9, abs=1.5)


def test_captions_are_drawn_with_their_image():
    """All captions of an image are right or wrong together, so five of them say no more than one."""
    one = np.where(np.arange(100) < 40, 1, 50)
    alone = intervals(Ranks(one, one, np.arange(100)))["t2i_r1"]
    five = intervals(Ranks(one, np.repeat(one, 5), np.repeat(np.arange(100), 5)))["t2i_r1"]
    assert five == pytest.approx(alone)


def test_p_value_is_that_of_all_exchanges():
    """Eight images: all 256 exchanges can be listed."""
    a = np.array([1, 1, 1, 1, 1, 7, 1, 1])
    b = np.array([7, 20, 1, 7, 20, 1, 7, 1])
    owner = np.arange(8)
    found = compare(Ranks(a, a, owner), Ranks(b, b, owner))
    shares = np.array(
        [sum(100 / 8 * 2 * (int(x <= k) - int(y <= k)) for k in (1, 5, 10)) for x, y in zip(a, b, strict=True)]
    )
    exact = np.mean([abs(np.dot(signs, shares)) >= abs(shares.sum()) - 1e-9
                     for signs in itertools.product((-1, 1), repeat=8)])  # fmt: skip
    assert found.difference == pytest.approx(shares.sum())
    assert found.p_value == pytest.approx(exact, abs=0.015)


def test_a_better_model_is_told_from_an_equal_one():
    better = compare(model(1.0, images=200), model(2.5, images=200))
    assert better.difference > 0
    assert better.interval[0] > 0
    assert better.p_value < 0.001
    same = compare(model(2.0), model(2.0))
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)
    reverse = compare(model(2.5, images=200), model(1.0, images=200))
    assert reverse.difference == pytest.approx(-better.difference)


def test_the_test_keeps_its_level():
    """Equal models: about one p-value in ten is below 0.1."""
    values = [compare(model(2.0, 2 * k, 40), model(2.0, 2 * k + 1, 40), samples=10, permutations=200).p_value
              for k in range(60)]  # fmt: skip
    assert np.mean(np.array(values) < 0.1) < 0.25
    assert np.mean(values) == pytest.approx(0.5, abs=0.15)


def test_what_cannot_be_compared():
    with pytest.raises(DistilvlError, match="different galleries"):
        compare(model(1.0), model(1.0, images=81))
    one = Ranks(np.array([1]), np.array([1, 1]), np.array([0, 0]))
    with pytest.raises(DistilvlError, match="one image cannot be resampled"):
        intervals(one)
