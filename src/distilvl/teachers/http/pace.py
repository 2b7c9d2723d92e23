"""How fast requests may start: a limit a minute, and pauses that the server asks for."""

from __future__ import annotations

import threading
import time


class Pace:
    """Shared by all requests to one server, from any thread.

    Args:
        rpm: requests a minute, at most, evenly spread; None for no limit.
    """

    def __init__(self, rpm: float | None = None) -> None:
        self._interval = 60.0 / rpm if rpm else 0.0
        self._next = self._pause_until = 0.0
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Return when the next request may start, or as soon as `stop` is set."""
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._interval
        while not stop.is_set():
            left = max(start, self._pause_until) - time.monotonic()
            if left <= 0:
                return
            stop.wait(left)

    def pause(self, seconds: float) -> None:
        """Start no request for so long: the server has asked for it."""
        with self._lock:
            self._pause_until = max(self._pause_until, time.monotonic() + seconds)
