"""Bodies of requests: read whole before anything else looks at them, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distilvl.serving.faults import Fault
from distilvl.serving.room import Room
from distilvl.serving.settings import ServeSettings

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
