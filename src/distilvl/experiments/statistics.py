"""Means, standard deviations and paired tests over seeds: whether an ordering of the paper holds here."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

from distilvl.errors import DistilvlError

SIGNIFICANCE = 0.05
POWER = 0.8  # the chance with which a detectable difference is found
_QUANTILES = 2000
ROUNDING = 1e-9  # differences of RSUM below this are rounding: one query more or less moves RSUM by at least 1e-4

Verdict = Literal["holds", "does not hold", "cannot be told"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, sample standard deviation (n - 1 in the denominator; none for a single value) and number of values."""

    mean: float
    spread: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell against another, paired by seed."""

    seeds: tuple[int, ...]  # those that both cells have
    difference: Summary | None  # of the scores, `better` minus `other`; none without a common seed
    p_value: float | None  # of the two-sided paired t-test; none for fewer than two common seeds
    adjusted_p: float | None  # the same after Holm's correction over the cells of a claim
    verdict: Verdict  # on "`better` scores higher", from `adjusted_p` at level 0.05
    interval: tuple[float, float] | None = None  # of the difference: those of a claim hold together at 95 %
    detectable: float | None = None  # the least true difference that so many seeds show in four of five cases


@dataclass(frozen=True, slots=True)
class ClaimCheck:
    """A claim's comparisons, one for each cell that is said to score lower, and the verdict on all of them."""

    comparisons: tuple[Comparison, ...]
    verdict: Verdict


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and count; `DistilvlError` for no value, or one that is not finite."""
    if not values or not all(math.isfinite(value) for value in values):
        raise DistilvlError(f"there is no mean of {list(values)}.", "Give at least one score, all of them finite.")
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), spread, len(values))


def check_claim(better: Mapping[int, float], others: Sequence[Mapping[int, float]]) -> ClaimCheck:
    """Whether `better` scores higher than each of `others`, all by seed: two-sided paired t-tests, Holm-corrected.

    Not Wilcoxon's, which cannot decide with 3 seeds. One "holds" for a mean difference above 0 with p < 0.05, and "does
    not hold" for one below 0; differences that are all equal have p = 0, or 1 when they are all 0. Overall the claim
    "holds" when all hold, "does not hold" when any does not, otherwise it "cannot be told".

    Intervals and detectable differences are of Bonferroni's level 0.05 / m for m comparisons, where Holm's correction
    begins: what an interval excludes, the test rejects.
    """
    seeds = [tuple(sorted(better.keys() & other.keys())) for other in others]
    differences = [[better[seed] - other[seed] for seed in common] for common, other in zip(seeds, others, strict=True)]
    p_values = [_paired_p(values) for values in differences]
    comparisons, level = [], SIGNIFICANCE / max(1, len(others))
    for common, values, p, adjusted in zip(seeds, differences, p_values, holm(p_values), strict=True):
        difference = summarise(values) if values else None
        verdict: Verdict = "cannot be told"
        if difference is not None and adjusted is not None and adjusted < SIGNIFICANCE:
            verdict = "holds" if difference.mean > 0 else "does not hold"
        interval, least = (None, None) if difference is None else _seen(difference, level)
        comparisons.append(Comparison(common, difference, p, adjusted, verdict, interval, least))
    verdicts = {comparison.verdict for comparison in comparisons}
    overall: Verdict = "does not hold" if "does not hold" in verdicts else "cannot be told"
    return ClaimCheck(tuple(comparisons), "holds" if verdicts == {"holds"} else overall)


def _seen(difference: Summary, level: float) -> tuple[tuple[float, float] | None, float | None]:
    """The interval mean -+ t s / sqrt(n) at 1 - `level`, and what difference a t-test at `level` finds with `POWER`.

    None for one seed. A true difference d moves Student's t by d sqrt(n) / s.
    """
    mean, spread, count = difference.mean, difference.spread, difference.count
    if spread is None:
        return None, None
    error, freedom = spread / math.sqrt(count), count - 1
    if spread <= ROUNDING:
        return (mean, mean), 0.0
    bound = float(stats.t.ppf(1 - level / 2, freedom))
    # Of Student's t, noncentral by x: a normal variable over the root of a mean of squares, at its quantiles.
    limits = bound * np.sqrt(stats.chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, freedom) / freedom)

    def lacks(x: float) -> float:
        return float(np.mean(stats.norm.sf(limits - x) + stats.norm.cdf(-limits - x))) - POWER

    least = optimize.brentq(lacks, 0, 2 * bound + 3)
    return (mean - bound * error, mean + bound * error), float(least) * error


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (S. Holm, Scandinavian Journal of Statistics 6, 1979).

    The k-th smallest of m values becomes max over j <= k of (m - j + 1) p_(j), at most 1. A missing value counts in m.
    """
    known = [1.0 if p is None else p for p in p_values]
    adjusted, largest = [1.0] * len(known), 0.0
    for place, k in enumerate(sorted(range(len(known)), key=known.__getitem__)):
        largest = adjusted[k] = max(largest, min(1.0, (len(known) - place) * known[k]))
    return [None if p is None else corrected for p, corrected in zip(p_values, adjusted, strict=True)]


def rank_agreement(ours: Sequence[float], paper: Sequence[float]) -> float | None:
    """Kendall's tau-b between two orderings of the same cells, -1 to 1.

    None for fewer than three cells, and when one side is the same everywhere, as then there is no ordering.
    """
    if len(ours) < 3 or len(set(ours)) == 1 or len(set(paper)) == 1:
        return None
    return float(stats.kendalltau(ours, paper).statistic)


def ranks(values: Sequence[float]) -> list[int]:
    """Place of each value, 1 for the highest; equal values share the better place."""
    return [1 + sum(other > value for other in values) for value in values]


def _paired_p(differences: Sequence[float]) -> float | None:
    if len(differences) < 2:
        return None
    summary = summarise(differences)
    if summary.spread is None or summary.spread <= ROUNDING:
        return 1.0 if abs(summary.mean) <= ROUNDING else 0.0
    return float(stats.ttest_rel(differences, [0.0] * len(differences)).pvalue)
