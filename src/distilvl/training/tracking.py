"""Curves of a run sent to TensorBoard, Weights & Biases, MLflow, Trackio, or a tracker of another package.

A run never waits for a tracker and never ends because of one.
"""

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from distilvl.config import Config
from distilvl.errors import DistilvlError, require
from distilvl.io.files import write_atomically
from distilvl.io.inputs import list_of_texts
from distilvl.training.run_folder import Line

PROJECT = "distilvl"  # project (experiment) of the runs, unless the tracker's own environment variable names another
GROUP = "distilvl.trackers"
"""Entry points of other packages: the name for `--log`, and a class that is made without arguments."""
FINISH_S = 60.0  # how long the end of a run waits for a tracker to take what is left
FOLDER = "tensorboard"
PARAMS_A_CALL, LONGEST_VALUE = 100, 6000  # both MLflow's own limits

logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run: its folder, the folder's name, and the resolved configuration (JSON values)."""

    name: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration flat: `{"optimizer.lr": 1e-4}`; lists as they are."""
        return dict(_flat(self.config, "."))


class Tracker(Protocol):
    """One service that draws curves. Any exception it raises ends its part in the run, and nothing else."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open the run, or continue it where `known` is what `start` returned then: how to find it again, no secret."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to each of the named curves. Steps never fall; values may be NaN."""

    def finish(self, failed: bool, /) -> None:
        """Send what is left and close the run, as failed where it did not reach its end."""


def _flat(value: Mapping[str, Any], between: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, between, f"{prefix}{key}{between}")
        else:
            yield f"{prefix}{key}", inner


def flat_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """`{"loss": 1.5, "losses": {"cd": 1.0}, "step": 3}` as `{"loss": 1.5, "losses/cd": 1.0}`: numbers, no `step`."""
    numbers = {k: v for k, v in _flat(line, "/") if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: float(value) for name, value in numbers.items() if name != "step"}


class Tracking:
    """A listener of the metrics log that passes each line on to the trackers.

    `tracking.json` in the run folder keeps under which name each tracker knows the run. One that knows it is not sent
    again what it was sent; one that does not is first sent what the run has behind it. `trackers` are not started.
    """

    def __init__(self, trackers: Mapping[str, Tracker], folder: Path, config: Config) -> None:
        self._trackers, self._ids = trackers, folder / "tracking.json"
        self._run = TrackedRun(folder.resolve().name, folder, config.model_dump(mode="json"))
        self._relays: dict[str, Relay] = {}

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        """Start the trackers; as `Listener.begin`."""
        known = self._read_ids()
        again = {(line["step"], name) for line in dropped for name in flat_scalars(line)}
        ids = dict(known)
        for name, tracker in self._trackers.items():
            try:
                ids[name] = tracker.start(self._run, known.get(name))
            except Exception as error:
                _warn_dropped(name, error)
                continue
            self._relays[name] = relay = Relay(name, tracker, again if name in known else set())
            for line in () if name in known else kept:
                relay.send(line)
        if ids != known:
            write_atomically(self._ids, (json.dumps(ids, indent=2) + "\n").encode())

    def line(self, line: Line) -> None:
        """As `Listener.line`."""
        for relay in self._relays.values():
            relay.send(line)

    def end(self, failed: bool) -> None:
        """As `Listener.end`."""
        for relay in self._relays.values():
            relay.finish(failed)

    def _read_ids(self) -> dict[str, str]:
        try:
            found = json.loads(self._ids.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


class Relay:
    """Hands lines to a started tracker from a thread of its own, until the tracker fails or the run ends.

    Points that it was `sent` before, named by step and curve, are left out.
    """

    def __init__(self, name: str, tracker: Tracker, sent: Set[tuple[int, str]], finish_s: float = FINISH_S) -> None:
        self._name, self._tracker, self._sent, self._finish_s, self._failed = name, tracker, sent, finish_s, False
        self._points: SimpleQueue[tuple[int, Mapping[str, float]] | None] = SimpleQueue()
        # A daemon, so that a server which never answers cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def send(self, line: Line) -> None:
        """Queue one point of each curve; returns at once."""
        step = line["step"]
        scalars = {name: value for name, value in flat_scalars(line).items() if (step, name) not in self._sent}
        if scalars and self._thread.is_alive():
            self._points.put((step, scalars))

    def finish(self, failed: bool) -> None:
        """Let the tracker take what is queued and close the run."""
        self._failed = failed
        self._points.put(None)
        self._thread.join(self._finish_s)
        if self._thread.is_alive():
            logger.warning("%s has not taken everything within %.0f s; the rest is lost", self._name, self._finish_s)

    def _work(self) -> None:
        try:
            while (point := self._points.get()) is not None:
                self._tracker.log(*point)
            self._tracker.finish(self._failed)
        except Exception as error:
            _warn_dropped(self._name, error)


def _warn_dropped(name: str, error: Exception) -> None:
    reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    logger.warning("the run goes on without %s, which failed (%s)", name, reason)


def load_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Trackers, not started; `DistilvlError` for an unknown name, or a library that is not installed."""
    others = {point.name: point for point in entry_points(group=GROUP)}
    found: dict[str, Tracker] = {}
    for name in list_of_texts(names):
        if name in TRACKERS:
            require(name, extra=name, why=f"--log {name}")
        elif name not in others:
            raise DistilvlError(f"there is no tracker {name!r}.", f"Choose from {', '.join([*TRACKERS, *others])}.")
        found[name] = TRACKERS[name]() if name in TRACKERS else others[name].load()()
    return found


class _TensorBoard:
    """Writes `RUN/tensorboard/`; a run that resumes adds a file there, which is read as one with the first."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self._logger = TensorBoardLogger(run.folder, name="", version=FOLDER, default_hp_metric=False)
        if known is None:
            text = "\n".join(f"    {key}: {value}" for key, value in run.settings.items())
            self._logger.experiment.add_text("config", text)
        return FOLDER

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._logger.log_metrics(scalars, step)
        self._logger.save()  # so that a killed run keeps its last point

    def finish(self, failed: bool) -> None:
        self._logger.finalize("failed" if failed else "success")


class _Wandb:
    """A W&B run a run folder, continued by its id; configuration and curves are sent, no output or command line."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        import wandb

        settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_meta=True)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        where: dict[str, Any] = {"project": project, "name": run.name, "dir": run.folder}
        identity = known or uuid.uuid4().hex[:8]
        self._run: Any = wandb.init(**where, id=identity, resume="allow", config=dict(run.config), settings=settings)
        self._run.define_metric("val/rsum", summary="max")
        return str(self._run.id)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """One run of MLflow for each run folder, continued by its id. The library's active run is left alone."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = str(found.experiment_id if found else self._client.create_experiment(experiment))
        self._id = self._client.create_run(number, run_name=run.name).info.run_id
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in run.settings.items()]
        for start in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(self._id, params=params[start : start + PARAMS_A_CALL])
        return self._id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(key, value, now, step) for key, value in scalars.items()])

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


class _Trackio:
    """One run of Trackio for each run folder, continued by its name, to which a few digits are added: names are ids."""

    def start(self, run: TrackedRun, known: str | None) -> str:
        import trackio

        name = known or f"{run.name}-{uuid.uuid4().hex[:6]}"
        quiet: dict[str, Any] = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        resume = "must" if known else "never"
        self._run: Any = trackio.init(project=PROJECT, name=name, config=dict(run.settings), resume=resume, **quiet)
        return name

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def finish(self, _failed: bool) -> None:
        self._run.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": _TensorBoard, "wandb": _Wandb}
TRACKERS |= {"mlflow": _Mlflow, "trackio": _Trackio}
"""Each by the name that is also that of its library and of its extra."""
