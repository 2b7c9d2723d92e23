"""One request to an embeddings API, the rate limiter in front of it, and what every kind of trouble means."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx2

from distilvl.errors import DistilvlError
from distilvl.teachers.http.dialects import BadReplyError, Embedding, Modality, usable_embeddings
from distilvl.teachers.http.settings import HttpSettings

# A server that wants more than this has closed for the day; a person should know.
LONGEST_PAUSE_S = 900.0
_AGAIN = frozenset({408, 409, 425, 429})
_ITEMS_REFUSED = frozenset({400, 413, 422})


class TransientError(Exception):
    """Trouble that may pass, in `retry_after` seconds perhaps; `unreachable`: there was no connection at all."""

    def __init__(self, reason: str, retry_after: float = 0.0, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.unreachable = retry_after, unreachable


class RefusedError(Exception):
    """The server does not take these items, and will not another time."""


class StoppedError(Exception):
    """Not sent: another request has failed for good."""


class RateLimiter:
    """Shared by all requests to one server, from any thread: at most `rpm` a minute, evenly spread."""

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
        """Start no request for so long: the server has said so."""
        with self._lock:
            self._pause_until = max(self._pause_until, time.monotonic() + seconds)


class Client:
    """A connection pool to one server; a context manager, safe to use from many threads.

    The key is only ever put into the request's header. Once `stop` is set, no request is sent.
    """

    def __init__(self, settings: HttpSettings, key: str | None, limiter: RateLimiter, stop: threading.Event) -> None:
        self.settings, self.stop = settings, stop
        self._key, self._limiter = key, limiter
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        limits = httpx2.Limits(max_connections=settings.concurrency)
        self._client = httpx2.Client(headers=headers, timeout=settings.timeout, limits=limits)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def encode(self, modality: Modality, items: Sequence[str]) -> dict[int, Embedding]:
        """One request for `items` (texts or data URIs): the good embeddings by position, perhaps not all.

        Raises the errors above, `BadReplyError`, and `DistilvlError` where no request can succeed (model, key, ...).
        """
        settings, dialect = self.settings, self.settings.dialect
        body = dialect.request(modality).body(settings.model, items)
        if settings.shorten:
            body[dialect.dimensions] = settings.dim
        self._limiter.wait(self.stop)
        if self.stop.is_set():
            raise StoppedError
        return usable_embeddings(self._post(settings.url + dialect.path, body), len(items), settings.dim, dialect)

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        try:
            response = self._client.post(url, content=json.dumps(body))
        except httpx2.InvalidURL as error:
            raise DistilvlError(f"the teacher's address {url} is not valid: {error}.", "Check the spec.") from error
        except httpx2.ConnectError as error:
            raise TransientError(f"no connection ({self._line(str(error))})", unreachable=True) from error
        except httpx2.TimeoutException as error:
            raise TransientError(f"no reply within {self.settings.timeout:g} s") from error
        except httpx2.HTTPError as error:
            raise TransientError(self._line(str(error)) or type(error).__name__) from error
        if response.status_code != 200:
            raise self._trouble(response, url)
        try:
            return response.json()
        except ValueError as error:
            raise BadReplyError("it is cut short, or not JSON") from error

    def _trouble(self, response: httpx2.Response, url: str) -> Exception:
        status, said = response.status_code, self._line(response.text)
        reason = f"status {status}" + (f", {said!r}" if said else "")
        if status in _AGAIN or status >= 500:
            seconds = _retry_after(response.headers.get("Retry-After"))
            if seconds > LONGEST_PAUSE_S:
                wait = f"the server {url} asks to wait {seconds:.0f} s ({reason})."
                return DistilvlError(wait, "Run the same command again then.")
            if status == 429:
                self._limiter.pause(seconds)
            return TransientError(reason, seconds)
        if status in _ITEMS_REFUSED:
            return RefusedError(reason)
        if status in (401, 403):
            name = self.settings.key_env or self.settings.dialect.key_env
            wants = f"refuses the key in {name}" if self._key is not None else f"wants a key, and {name} is not set"
            return DistilvlError(f"the server {url} {wants} ({reason}).", f"Put the API's key into {name}.")
        what = f"the server {url} takes no requests for {self.settings.model!r} ({reason})."
        return DistilvlError(what, "Check the address, the dialect and the model's name.")

    def _line(self, text: str) -> str:
        """`text` as part of a one-line message, without the key, which some servers repeat."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:200]


def _retry_after(header: str | None) -> float:
    """Seconds to wait: the header holds them, or a date; 0 when it says nothing."""
    with suppress(ValueError, TypeError):
        return max(0.0, float(header or ""))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(header or "").timestamp() - time.time())
    return 0.0
