"""HTTP connections with a deadline for the header, which uvicorn's own lack, and with refusals in our form."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from distilvl.serving.faults import Fault


class PatientProtocol(H11Protocol):
    """Closes a connection whose request header is not complete `seconds` after it began; see `with_deadline`."""

    seconds = 30.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first header is due."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """On a connection that is kept the deadline runs from a header's first byte."""
        if self._deadline is None and self.conn.their_state is h11.IDLE:
            self._deadline = self.loop.call_later(self.seconds, self._give_up)
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
            message = f"The request's header did not arrive within {self.seconds:g} s."
            self.transport.write(_last_answer("Request Timeout", Fault(408, message, code="slow_request")))
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it quotes what was sent
        """What is not HTTP is refused here, before there is a request."""
        fault = Fault(400, "This is no HTTP request that can be read.", code="invalid_http")
        self.transport.write(_last_answer("Bad Request", fault))
        self.transport.close()


def _last_answer(reason: str, fault: Fault) -> bytes:
    """A refusal as bytes, after which the connection is closed."""
    body = bytes(fault.response().body)
    head = f"HTTP/1.1 {fault.status_code} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def with_deadline(seconds: float) -> type[PatientProtocol]:
    """The protocol with `seconds` for each header."""
    return type("Patient", (PatientProtocol,), {"seconds": seconds})
