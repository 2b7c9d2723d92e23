"""MLflow; `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and the library's other variables apply."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from distilvl.tracking.tracker import PROJECT, TrackedRun

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
