"""How uvicorn runs the application: its limits, and connections whose request header must arrive in time."""

import asyncio

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from distilvl.serving.errors import RequestError
from distilvl.serving.settings import ServeSettings

# Longer than most clients keep their connections, so that it is they who close them.
_KEEP_ALIVE_S = 75
_CONNECTIONS = 512


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs `app`."""
    return uvicorn.Config(
        app,
        http=type("Connection", (_Connection,), {"header_seconds": settings.read_timeout}),
        access_log=False,  # its lines would hold people's queries
        ws="none", log_config=None, server_header=False, proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S, limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.read_timeout + settings.request_timeout) + 1,
    )  # fmt: skip


class _Connection(H11Protocol):
    """A connection that is closed when a request's header is not complete `header_seconds` after it began.

    uvicorn has no option for this: its `timeout_keep_alive` begins after a response only.
    """

    header_seconds = 30.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first header is due."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """On a connection that is kept the deadline runs from a header's first byte."""
        if self._deadline is None and self.conn.their_state is h11.IDLE:
            self._deadline = self.loop.call_later(self.header_seconds, self._give_up)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """No header will come."""
        self._cancel()
        super().connection_lost(exc)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            message = f"The request's header did not arrive within {self.header_seconds:g} s."
            self._refuse("Request Timeout", RequestError(408, message, code="slow_request"))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it quotes what was sent
        """What is not HTTP is refused here, before there is a request."""
        message = "This is no HTTP request that can be read."
        self._refuse("Bad Request", RequestError(400, message, code="invalid_http"))

    def _refuse(self, reason: str, error: RequestError) -> None:
        """Send a refusal, and close."""
        body = bytes(error.response().body)
        head = f"HTTP/1.1 {error.status_code} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body)
        self.transport.close()
