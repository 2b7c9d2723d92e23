"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "distilvl"
"""Project (experiment) of the runs, unless the tracker's own environment variable names another."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Attributes:
        name: the run folder's name.
        folder: the run folder.
        config: the resolved configuration, nested; JSON values only.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration flat: `{"optimizer.lr": 1e-4}`; lists as they are."""
        return dict(_flat(self.config, ""))


class Tracker(Protocol):
    """One service that draws curves. Any exception it raises ends its part in the run, and nothing else."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run.

        Args:
            run: the run.
            known: what `start` returned when this run began; the same curves are continued. None for a new run.

        Returns:
            What the tracker needs in order to find the run again; kept in the run folder, so no secret.
        """

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each of the named curves. Steps never fall; values may be NaN."""

    def finish(self, failed: bool, /) -> None:
        """Send what is left and close the run, as failed where it did not reach its end."""


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        found += _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else [(f"{prefix}{key}", inner)]
    return found
