"""Weights & Biases; `WANDB_MODE`, `WANDB_PROJECT` and the library's other variables apply."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

import wandb

from distilvl.tracking.tracker import PROJECT, TrackedRun


class WandbTracker:
    """One run of W&B for each run folder, continued by its id."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """As `Tracker.start`; returns the id of the run.

        Only the configuration and the curves are sent: neither what the process prints, nor its command line.
        """
        settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_meta=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=known or uuid.uuid4().hex[:8],
            resume="allow",
            dir=run.folder,
            config=dict(run.config),
            settings=settings,
        )
        self._run.define_metric("val/rsum", summary="max")
        return str(self._run.id)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Tracker.log`."""
        self._run.log(dict(scalars), step=step)

    def finish(self, failed: bool) -> None:
        """As `Tracker.finish`."""
        self._run.finish(exit_code=int(failed))
