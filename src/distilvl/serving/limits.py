"""What the server allows: sizes, times, the key, and how much may be under way at once."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from distilvl.errors import DistilvlError
from distilvl.serving.errors import Fault


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits of one server; all are positive.

    Attributes:
        max_batch: items that the model encodes at a time.
        max_wait_ms: how long a batch waits for more items, milliseconds.
        max_items: texts and pictures of one request.
        max_queue: items that are waiting or being encoded, of all requests; beyond it requests are turned away.
        max_upload_mb: size of one request's body, millions of bytes.
        max_pixels: of one picture, whatever the limit elsewhere is. Four times as many may be decoded and waiting, of
            all requests.
        read_timeout: seconds in which a request's header, and then its body, must have arrived.
        request_timeout: seconds from there to the answer.
        api_key: what clients must send; None for no key.
        hosts: names by which the server may be called; None for any. See `loopback_names`.
    """

    max_batch: int = 32
    max_wait_ms: float = 5.0
    max_items: int = 256
    max_queue: int = 1024
    max_upload_mb: float = 20.0
    max_pixels: int = 50_000_000
    read_timeout: float = 30.0
    request_timeout: float = 60.0
    api_key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and not 0 < value < float("inf"):
                raise DistilvlError(f"{entry.name} is {value}.", "Give a positive number.")
        if self.max_items > self.max_queue:
            raise DistilvlError(
                f"max_queue is {self.max_queue}, less than the {self.max_items} items of one request (max_items).",
                "Raise the one or lower the other.",
            )
        key = self.api_key
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise DistilvlError("the API key is empty or holds characters that no header takes.", "Choose another one.")

    @property
    def max_upload(self) -> int:
        """Bytes of one request's body."""
        return int(self.max_upload_mb * 1_000_000)

    def accepts(self, key: bytes) -> bool:
        """Whether `key` is the right one, in time that does not depend on where it differs."""
        return self.api_key is None or hmac.compare_digest(key, self.api_key.encode("ascii"))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def loopback_names(host: str) -> frozenset[str]:
    """The names for which a keyless server at the loopback address `host` answers.

    A web page from elsewhere can have its own name lead to 127.0.0.1 (DNS rebinding) and would then read the answers
    as its own; the Host header that browsers send still has that page's name.
    """
    return frozenset({host, "localhost", "127.0.0.1", "::1"})


def read_key(variable: str | None, file: Path | None) -> str | None:
    """The key in an environment variable or a file, without white space around it; None if neither is named.

    Raises:
        DistilvlError: both are named, or there is no key where one should be.
    """
    if variable is not None and file is not None:
        raise DistilvlError("two places for the key are given.", "Give --api-key-env or --api-key-file.")
    if variable is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise DistilvlError(f"the environment variable {variable} is not set.", "Put the key into it.")
        return key
    if file is None:
        return None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DistilvlError(f"the key's file {file} cannot be read.", "Check the path.") from error
    if not key:
        raise DistilvlError(f"the key's file {file} is empty.", "Write the key into it.")
    return key


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


T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled after `seconds`.

    Raises:
        Fault: 504, it took longer.
    """
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:
        raise Fault(504, f"No answer within {seconds:g} s.", code="timeout") from error
