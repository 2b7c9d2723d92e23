"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from distilvl.tracking.tracker import TrackedRun

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes `RUN/tensorboard/`; a run that resumes adds a file there, which is read as one with the first."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """As `Tracker.start`; returns the folder's name."""
        self._logger = TensorBoardLogger(run.folder, name="", version=FOLDER, default_hp_metric=False)
        if known is None:
            text = "\n".join(f"    {key}: {value}" for key, value in run.settings.items())
            self._logger.experiment.add_text("config", text)
        return FOLDER

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Tracker.log`; flushed, so that a killed run keeps its last point."""
        self._logger.log_metrics(scalars, step)
        self._logger.save()

    def finish(self, failed: bool) -> None:
        """As `Tracker.finish`; TensorBoard has no failed runs."""
        self._logger.finalize("failed" if failed else "success")
