"""The outermost layer: headers of every answer, refusals and mistakes as JSON, and the count of requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilvl.serving.faults import Fault, internal
from distilvl.serving.metrics import Metrics

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
