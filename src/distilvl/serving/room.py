"""How much may be under way at once, so that memory has a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distilvl.serving.faults import Fault


class Room:
    """Counts what requests hold, and turns away what does not fit; for use in the event loop only.

    Args:
        what: name of what is counted, for the message.
        most: how much of it fits.
        show: told of the total each time it changes.
    """

    def __init__(self, what: str, most: int, show: Callable[[int], None] = lambda _: None) -> None:
        self._what, self._most, self._show = what, most, show
        self._held = 0

    @contextmanager
    def take(self) -> Iterator[Callable[[int], None]]:
        """A share that can be added to, and is given back at the end.

        Raises:
            Fault: 503 with Retry-After, when adding would exceed what fits.
        """
        share = 0

        def add(amount: int) -> None:
            nonlocal share
            if self._held + amount > self._most:
                message = f"The server is busy: too many {self._what} are waiting. Try again in a moment."
                raise Fault(503, message, code="overloaded", headers={"Retry-After": "1"})
            share += amount
            self._held += amount
            self._show(self._held)

        try:
            yield add
        finally:
            self._held -= share
            self._show(self._held)
