"""Scoring: ranks, recall at K, RSUM."""

from __future__ import annotations

from distilvl.evaluation.score import Recalls, Score, format_score, hard_negative_accuracy, score

__all__ = ["Recalls", "Score", "format_score", "hard_negative_accuracy", "score"]
