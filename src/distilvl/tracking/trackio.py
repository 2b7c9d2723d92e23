"""Trackio; on this machine unless `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` says otherwise."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import trackio

from distilvl.tracking.tracker import PROJECT, TrackedRun


class TrackioTracker:
    """One run of Trackio for each run folder, continued by its name, to which a few digits are added: names are ids."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """As `Tracker.start`; returns the name of the run."""
        name = known or f"{run.name}-{uuid.uuid4().hex[:6]}"
        self._run: Any = trackio.init(
            project=PROJECT,
            name=name,
            config=dict(run.settings),
            resume="must" if known else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Tracker.log`."""
        self._run.log(dict(scalars), step=step)

    def finish(self, _failed: bool) -> None:
        """As `Tracker.finish`; Trackio has no failed runs."""
        self._run.finish()
