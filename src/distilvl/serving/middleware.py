"""The middleware: bodies read whole within limits, headers of every response, errors as JSON, the count of requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilvl.serving.batching import Metrics
from distilvl.serving.errors import Fault, internal
from distilvl.serving.limits import Room, ServeSettings

# Each list or object of a body costs some 40 times its bytes, and time in which no other request is served.
_MOST_BRACKETS = 100_000
_WITHOUT_BODY = ("GET", "HEAD")

# So many of the largest bodies are held at a time, of all requests.
_BODIES_HELD = 16


class Bodies:
    """ASGI middleware: 413 as soon as a body is known to be too large, declared or not; 408 when it does not come.

    A body of very many lists or objects is refused before it is parsed, with 422, and so is any body of GET or HEAD.

    Args:
        app: gets the body in one message.
        settings: limits.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._most, self._seconds = app, settings.max_upload, settings.read_timeout
        self._room = Room("uploads", _BODIES_HELD * self._most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._room.take() as add:
            body = await self._read(Headers(scope=scope), receive, add)
            if body is not None:
                if body and scope["method"] in _WITHOUT_BODY:
                    raise _body_of_get()
                _require_simple(body)
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive, add: Callable[[int], None]) -> bytes | None:
        """The body; None when the client has left."""
        # The HTTP parser has checked that it is a number. A chunked body declares nothing.
        if int(headers.get("content-length", "0")) > self._most:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._collect(receive, add), self._seconds)
        except asyncio.TimeoutError as error:
            message = f"The body did not arrive within {self._seconds:g} s."
            raise Fault(408, message, code="slow_request") from error

    async def _collect(self, receive: Receive, add: Callable[[int], None]) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            if len(body) + len(piece) > self._most:
                raise self._too_large()
            add(len(piece))
            body += piece
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> Fault:
        return Fault(413, f"The body is larger than {self._most:,} bytes.", code="too_large")


def _body_of_get() -> Fault:
    message = "GET and HEAD take no body: send it with POST, or what it says as parameters of the address."
    return Fault(422, message, code="unexpected_body", param="body")


def _require_simple(body: bytes) -> None:
    brackets = body.count(b"[") + body.count(b"{")
    if brackets > _MOST_BRACKETS:
        message = f"The body has {brackets:,} opening brackets; at most {_MOST_BRACKETS:,} are read."
        raise Fault(422, message, code="too_complex")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives `body`, then what comes after it: the client's leaving."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


logger = logging.getLogger("distilvl")

# Nothing from elsewhere, nothing inline; pictures that the page has fetched or was given are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# A client in the midst of sending reads our answer only if the connection is not torn down under it.
_LINGER_S = 1.0
_LINGER_BYTES = 2**26


class Edge:
    """ASGI middleware.

    Args:
        app: what answers.
        metrics: told of every request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        exchange = _Exchange(scope, receive, send)
        try:
            await self._answer(scope, exchange)
        finally:
            # The route's pattern, not the path: a label for each path that anyone tries would never end.
            route = str(getattr(scope.get("route"), "path", "other"))
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics.request(route, method, exchange.status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Fault as fault:
            await exchange.refuse(fault)
        except Exception:
            logger.exception("%s %s failed", scope["method"], getattr(scope.get("route"), "path", "other"))
            if exchange.status:
                raise  # too late for another answer: the server cuts the connection
            await exchange.refuse(internal())


class _Exchange:
    """One request's two directions, watched: what was answered, and whether the body has been read to its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        headers = Headers(scope=scope)
        self._unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.status = 0

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        """Pass on the answer, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            if "cache-control" not in headers:
                headers["Cache-Control"] = "no-store"
            if self._unread:
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, fault: Fault) -> None:
        """Answer with `fault`; of a body that is still coming in a second's worth, at most 64 MiB, is thrown away."""
        unread = self._unread

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and unread:
                await self.send({**message, "more_body": True})
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._discard(), _LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await self.send(message)

        await fault.response()(self._scope, self.receive, send)

    async def _discard(self) -> None:
        taken = 0
        while self._unread and taken < _LINGER_BYTES:
            taken += len((await self.receive()).get("body", b""))
