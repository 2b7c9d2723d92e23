from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distilvl.errors import DistilvlError
from distilvl.experiments.statistics import Comparison, Summary, check_claim, holm, rank_agreement, ranks, summarise

probability = st.floats(0, 1)
rsum = st.floats(0, 600)


def scores(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def compare(better: dict[int, float], other: dict[int, float]) -> Comparison:
    return check_claim(better, [other]).comparisons[0]


def test_summary_has_the_sample_standard_deviation() -> None:
    assert summarise([1.0, 2.0, 6.0]) == Summary(3.0, pytest.approx(math.sqrt((4 + 1 + 9) / 2), rel=1e-15), 3)


def test_a_single_value_has_no_spread() -> None:
    assert summarise([5.0]) == Summary(5.0, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_summary_of_nothing_or_of_what_is_not_finite(values: list[float]) -> None:
    with pytest.raises(DistilvlError, match="no mean"):
        summarise(values)


def test_three_seeds_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s = 1, t = 2 sqrt 3. With 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)."""
    found = compare(scores(11.0, 22.0, 33.0), scores(10.0, 20.0, 30.0))
    t = 2 * math.sqrt(3)
    assert found.difference == Summary(2.0, 1.0, 3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-12)
    assert found.p_value == found.adjusted_p
    assert found.verdict == "cannot be told"  # p = 0.074


def test_the_interval_of_three_seeds_by_hand() -> None:
    """Of 2 with s = 1: 2 -+ t / sqrt(3). With two degrees of freedom t(0.975) = 0.95 sqrt(2 / (1 - 0.95^2))."""
    found = compare(scores(11.0, 22.0, 33.0), scores(10.0, 20.0, 30.0))
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)
    assert found.interval == pytest.approx((2 - half, 2 + half), rel=1e-12)


@pytest.mark.parametrize(("count", "least"), [(3, 3.2640), (5, 1.6820), (10, 0.9960), (20, 0.6604)])
def test_a_detectable_difference_is_found_in_four_of_five_cases(count: int, least: float) -> None:
    """Sample sizes of the paired t-test at 5 % and a power of 80 %, as tables of it have them, and by drawing."""
    drawn = np.random.default_rng(count).normal(size=(20_000, count))
    one = (drawn[0] - drawn[0].mean()) / drawn[0].std(ddof=1)
    found = compare(scores(*one), scores(*[0.0] * count)).detectable
    assert found == pytest.approx(least, abs=2e-3)
    assert (stats.ttest_1samp(drawn + found, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.lists(st.floats(-5, 5), min_size=8, max_size=8))
def test_what_the_intervals_of_a_claim_exclude_the_test_rejects(better: list[float], other: list[float]) -> None:
    against = [scores(*other), scores(*[0.0] * 8)]
    for one in check_claim(scores(*better), against).comparisons:
        assert one.interval is not None
        assert one.difference is not None
        low, high = one.interval
        assert low <= one.difference.mean <= high
        if low > 1e-6 or high < -1e-6:
            assert one.verdict == ("holds" if low > 0 else "does not hold")


def test_one_seed_has_no_interval() -> None:
    assert (compare({0: 5.0}, {0: 1.0}).interval, compare({0: 5.0}, {0: 1.0}).detectable) == (None, None)


def test_two_seeds_by_hand() -> None:
    """Differences 10 and 10.2: mean 10.1, s = 0.1 sqrt 2, t = 101. One degree of freedom: p = 1 - 2/pi atan t."""
    found = compare(scores(20.0, 30.2), scores(10.0, 20.0))
    assert found.p_value == pytest.approx(1 - 2 / math.pi * math.atan(101), rel=1e-9)
    assert found.verdict == "holds"


def test_the_reverse_does_not_hold() -> None:
    assert compare(scores(10.0, 20.0), scores(20.0, 30.2)).verdict == "does not hold"


def test_only_common_seeds_are_paired() -> None:
    found = compare({0: 5.0, 1: 6.0, 2: 7.5}, {2: 7.0, 1: 5.0, 9: 1.0})
    assert found.seeds == (1, 2)
    assert found.difference == Summary(0.75, pytest.approx(math.sqrt(0.125)), 2)


def test_one_seed_cannot_tell() -> None:
    found = compare({0: 500.0}, {0: 100.0})
    assert (found.difference, found.p_value, found.verdict) == (Summary(400.0, None, 1), None, "cannot be told")


def test_no_common_seed_cannot_tell() -> None:
    found = compare({0: 500.0}, {1: 100.0})
    assert (found.seeds, found.difference, found.p_value, found.verdict) == ((), None, None, "cannot be told")


def test_equal_runs_cannot_tell() -> None:
    found = compare(scores(1.5, 2.5, 3.5), scores(1.5, 2.5, 3.5))
    assert (found.p_value, found.verdict) == (1.0, "cannot be told")


def test_equal_differences_are_the_limit_of_the_test_and_no_nan() -> None:
    higher, lower = scores(0.3, 1.3, 2.3), scores(0.1, 1.1, 2.1)  # differences equal up to rounding
    assert (compare(higher, lower).p_value, compare(higher, lower).verdict) == (0.0, "holds")
    assert (compare(lower, higher).p_value, compare(lower, higher).verdict) == (0.0, "does not hold")


@given(st.lists(st.tuples(rsum, rsum), max_size=6))
def test_p_is_a_probability_and_swapping_sides_swaps_the_verdict(pairs: list[tuple[float, float]]) -> None:
    first, second = scores(*(a for a, _ in pairs)), scores(*(b for _, b in pairs))
    one, other = compare(first, second), compare(second, first)
    assert one.p_value == pytest.approx(other.p_value, nan_ok=False)
    assert one.p_value is None or 0 <= one.p_value <= 1
    opposite = {"holds": "does not hold", "does not hold": "holds", "cannot be told": "cannot be told"}
    assert other.verdict == opposite[one.verdict]


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, then the running maximum."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_stops_at_one_and_counts_missing_tests() -> None:
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]
    assert holm([]) == []


@given(st.lists(probability, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = [p for p in holm(p_values) if p is not None]
    assert len(adjusted) == len(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p)
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert all(low[1] <= high[1] for low, high in itertools.pairwise(pairs))


def test_a_claim_over_several_cells_is_corrected() -> None:
    """Two seeds, t = 20 gives p = 1 - 2/pi atan 20 = 0.0318: enough alone, not among two such cells."""
    low = scores(100.0, 100.0)
    high = scores(119.0, 121.0)  # mean 20, s = sqrt 2, standard error 1
    p = 1 - 2 / math.pi * math.atan(20)
    assert check_claim(high, [low]).verdict == "holds"
    both = check_claim(high, [low, low])
    assert [comparison.p_value for comparison in both.comparisons] == pytest.approx([p, p], rel=1e-9)
    assert [comparison.adjusted_p for comparison in both.comparisons] == pytest.approx([2 * p, 2 * p], rel=1e-9)
    assert both.verdict == "cannot be told"


def test_the_verdict_on_all_cells() -> None:
    middle, low, high, near = scores(5.0, 6.0), scores(1.0, 2.0), scores(9.0, 10.0), scores(4.0, 7.0)
    assert check_claim(middle, [low, low]).verdict == "holds"
    assert check_claim(middle, [low, high]).verdict == "does not hold"
    assert check_claim(middle, [low, near]).verdict == "cannot be told"
    assert check_claim(middle, [low, {}]).verdict == "cannot be told"
    assert check_claim(middle, [high, {}]).verdict == "does not hold"


def test_ranks_share_the_better_place() -> None:
    assert ranks([3.0, 9.0, 3.0, 1.0]) == [2, 1, 2, 4]


def test_rank_agreement_by_hand() -> None:
    """Of the 6 pairs of four cells, 5 are ordered alike and 1 the other way round: tau = (5 - 1) / 6."""
    assert rank_agreement([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]) == pytest.approx(4 / 6)
    assert rank_agreement([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)


@pytest.mark.parametrize(("ours", "paper"), [([1.0, 2.0], [1.0, 2.0]), ([5.0] * 3, [1.0, 2.0, 3.0]), ([], [])])
def test_no_rank_agreement_without_an_ordering(ours: list[float], paper: list[float]) -> None:
    assert rank_agreement(ours, paper) is None
