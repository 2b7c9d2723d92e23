"""Between the run and one tracker: the run never waits for it, and never ends because of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from queue import SimpleQueue

from distilvl.tracking.tracker import Tracker

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
