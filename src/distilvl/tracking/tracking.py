"""All trackers of a run, hung on its metrics log; a run that resumes continues the curves it began."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from distilvl.config import Config
from distilvl.features.atomic import write_atomically
from distilvl.tracking.relay import Relay, warn_dropped
from distilvl.tracking.scalars import flat_scalars
from distilvl.tracking.tracker import TrackedRun, Tracker
from distilvl.training.metrics import Line


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
