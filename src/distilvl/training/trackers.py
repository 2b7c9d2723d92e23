"""TensorBoard, Weights & Biases, MLflow and Trackio, each through its own library and its own environment variables."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

import trackio
import wandb
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from distilvl.training.tracking import PROJECT, TrackedRun

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


PARAMS_A_CALL = 100
LONGEST_VALUE = 6000
"""Both MLflow's own limits."""


class MlflowTracker:
    """One run of MLflow for each run folder, continued by its id. The library's active run is left alone."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """As `Tracker.start`; returns the id of the run."""
        self._client = MlflowClient()
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        self._id = self._client.create_run(self._experiment(), run_name=run.name).info.run_id
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in run.settings.items()]
        for start in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(self._id, params=params[start : start + PARAMS_A_CALL])
        return self._id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """As `Tracker.log`."""
        now = round(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(key, value, now, step) for key, value in scalars.items()])

    def finish(self, failed: bool) -> None:
        """As `Tracker.finish`."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


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
