"""Scoring: ranks, recall at K, RSUM, protocols, agreement, intervals; arrays in, no model needed."""

from distilvl.evaluation.agreement import Agreement, agreement
from distilvl.evaluation.ground_truth import Groups
from distilvl.evaluation.intervals import Comparison, compare, intervals
from distilvl.evaluation.protocols import PROTOCOLS
from distilvl.evaluation.score import (
    Ranks,
    Recalls,
    Score,
    format_score,
    hard_negative_accuracy,
    rank_gallery,
    score,
    score_ranks,
)
from distilvl.evaluation.zero_shot import ZeroShot, zero_shot

__all__ = [
    "PROTOCOLS", "Agreement", "Comparison", "Groups", "Ranks", "Recalls", "Score", "ZeroShot", "agreement", "compare",
    "format_score", "hard_negative_accuracy", "intervals", "rank_gallery", "score", "score_ranks", "zero_shot",
]  # fmt: skip
