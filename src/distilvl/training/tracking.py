"""Curves of a run sent to trackers that people already use; a run never waits for one and never ends because of it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, cast

from distilvl.config import Config
from distilvl.errors import DistilvlError, require
from distilvl.io.files import write_atomically
from distilvl.io.inputs import list_of_texts
from distilvl.training.run_folder import Line

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


def flat_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """`{"loss": 1.5, "losses": {"cd": 1.0}, "step": 3}` as `{"loss": 1.5, "losses/cd": 1.0}`.

    `step` is left out, and so is whatever is no number.
    """
    return {name: value for name, value in _scalars_flat(line, "") if name != "step"}


def _scalars_flat(line: Mapping[str, Any], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in line.items():
        if isinstance(value, Mapping):
            found += _scalars_flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{prefix}{key}", float(value)))
    return found


FINISH_S = 60.0
"""How long the end of a run waits for a tracker to take what is left."""

logger = logging.getLogger("distilvl")


class Relay:
    """Hands points to a started tracker from a thread of its own, until the tracker fails or the run ends.

    Args:
        name: the tracker's, for warnings.
        tracker: started.
        finish_s: as `FINISH_S`.
    """

    def __init__(self, name: str, tracker: Tracker, finish_s: float = FINISH_S) -> None:
        self._name, self._tracker, self._finish_s = name, tracker, finish_s
        self._points: SimpleQueue[tuple[int, Mapping[str, float]] | None] = SimpleQueue()
        self._failed = False
        # A daemon, so that a server which never answers cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def send(self, step: int, scalars: Mapping[str, float]) -> None:
        """Queue one point of each curve; returns at once."""
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
            warn_dropped(self._name, error)


def warn_dropped(name: str, error: Exception) -> None:
    """The one line that a user sees of a tracker's failure."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    logger.warning("the run goes on without %s, which failed (%s)", name, reason)


TRACKERS = {
    "tensorboard": "TensorBoardTracker",
    "wandb": "WandbTracker",
    "mlflow": "MlflowTracker",
    "trackio": "TrackioTracker",
}
"""Class of each tracker; its name is also that of its module here, of its library and of its extra."""


def load_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Trackers, not started; a name given twice counts once.

    Raises:
        NotAListError: one name instead of a list.
        DistilvlError: an unknown name, or a library that is not installed.
    """
    names = list_of_texts(names)
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise DistilvlError(f"there is no tracker {unknown[0]!r}.", f"Choose from {', '.join(TRACKERS)}.")
    return {name: _load(name) for name in dict.fromkeys(names)}


def _load(name: str) -> Tracker:
    require(name, extra=name, why=f"--log {name}")
    return cast(Tracker, getattr(import_module(f"distilvl.tracking.{name}"), TRACKERS[name])())


class Tracking:
    """A listener of the metrics log that passes each line on to the trackers.

    `tracking.json` in the run folder keeps under which name each tracker knows the run. A tracker that knows it is not
    sent again what it was sent before; one that does not is sent what the run has behind it first.

    Args:
        trackers: by name, not started.
        folder: the run folder.
        config: resolved.
    """

    def __init__(self, trackers: Mapping[str, Tracker], folder: Path, config: Config) -> None:
        self._trackers, self._ids = trackers, folder / "tracking.json"
        self._run = TrackedRun(folder.resolve().name, folder, config.model_dump(mode="json"))
        self._relays: dict[str, Relay] = {}
        self._sent: dict[str, set[tuple[int, str]]] = {}

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line]) -> None:
        """Start the trackers; as `Listener.begin`."""
        known = self._read_ids()
        again = {(line["step"], name) for line in dropped for name in flat_scalars(line)}
        ids = dict(known)
        for name, tracker in self._trackers.items():
            try:
                ids[name] = tracker.start(self._run, known.get(name))
            except Exception as error:
                warn_dropped(name, error)
                continue
            self._relays[name] = Relay(name, tracker)
            self._sent[name] = again if name in known else set()
            for line in () if name in known else kept:
                self._send(name, line)
        if ids != known:
            write_atomically(self._ids, (json.dumps(ids, indent=2) + "\n").encode())

    def line(self, line: Line) -> None:
        """As `Listener.line`."""
        for name in self._relays:
            self._send(name, line)

    def end(self, failed: bool) -> None:
        """As `Listener.end`."""
        for relay in self._relays.values():
            relay.finish(failed)

    def _send(self, name: str, line: Line) -> None:
        step, sent = line["step"], self._sent[name]
        scalars = flat_scalars(line)
        self._relays[name].send(step, {key: value for key, value in scalars.items() if (step, key) not in sent})

    def _read_ids(self) -> dict[str, str]:
        try:
            found = json.loads(self._ids.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}
