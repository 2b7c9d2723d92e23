"""Means, standard deviations and paired tests over seeds: whether an ordering of the paper holds here."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from distilvl.errors import DistilvlError

SIGNIFICANCE = 0.05
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
    """
    seeds = [tuple(sorted(better.keys() & other.keys())) for other in others]
    differences = [[better[seed] - other[seed] for seed in common] for common, other in zip(seeds, others, strict=True)]
    p_values = [_paired_p(values) for values in differences]
    comparisons = []
    for common, values, p, adjusted in zip(seeds, differences, p_values, holm(p_values), strict=True):
        difference = summarise(values) if values else None
        verdict: Verdict = "cannot be told"
        if difference is not None and adjusted is not None and adjusted < SIGNIFICANCE:
            verdict = "holds" if difference.mean > 0 else "does not hold"
        comparisons.append(Comparison(common, difference, p, adjusted, verdict))
    verdicts = {comparison.verdict for comparison in comparisons}
    overall: Verdict = "does not hold" if "does not hold" in verdicts else "cannot be told"
    return ClaimCheck(tuple(comparisons), "holds" if verdicts == {"holds"} else overall)


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
