"""A line of metrics.jsonl as flat scalars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """`{"loss": 1.5, "losses": {"cd": 1.0}, "step": 3}` as `{"loss": 1.5, "losses/cd": 1.0}`.

    `step` is left out, and so is whatever is no number.
    """
    return {name: value for name, value in _flat(line, "") if name != "step"}


def _flat(line: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in line.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{prefix}{key}", float(value)))
    return found
