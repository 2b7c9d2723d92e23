"""`distilvl serve`: load the model, open the index, listen until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import h11
from PIL import Image
from uvicorn.protocols.http.h11_impl import H11Protocol

from distilvl.data.left_out import all_left_out, read_left_out
from distilvl.errors import DistilvlError, require
from distilvl.serving.errors import Fault
from distilvl.serving.limits import ServeSettings, is_loopback, loopback_names

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


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


logger = logging.getLogger("distilvl")

# Longer than most clients keep their connections, so that it is they who close them.
_KEEP_ALIVE_S = 75
_CONNECTIONS = 512


def serve(
    model: str | None,
    index: Path | None,
    settings: ServeSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    no_key: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way, and return.

    Args:
        model: what `distilvl.search.load_encoder` takes; None for the index's own.
        index: to search, with the page; None for embeddings only.
        settings: limits and key.
        host: address to listen at.
        port: 0 for any that is free.
        name: what clients call the model; its own name if not given.
        no_key: let everyone in who reaches the address, by whatever name.

    Raises:
        DistilvlError: nothing to serve, a public address without a key, an address that is taken, a model or index
            that cannot be opened, or the extra `serve` is not installed.
    """
    settings = _guarded(settings, host, no_key)
    uvicorn = require("uvicorn", "fastapi", "prometheus_client", extra="serve", why="serving")
    from distilvl.models.encoder import load_encoder
    from distilvl.search import Index
    from distilvl.serving.app import create_app

    # Between once and twice its limit Pillow only warns; we refuse by a limit of our own.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    if model is None:
        if index is None:
            raise DistilvlError("there is nothing to serve.", "Give --model, --index, or both.")
        encoder = Index.open(index).encoder
    else:
        encoder = load_encoder(model)
    if index is not None:
        all_left_out(read_left_out(index)).log(str(index))
    open_index = None if index is None else lambda batched: Index.open(index, model=batched)
    with _listen(host, port) as listener:
        app = create_app(encoder, settings, name=name, open_index=open_index)
        server = uvicorn.Server(server_config(app, settings))
        # The server passes a signal on once it has stopped; being told to stop is no failure of this command.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        logger.info("serving %s at %s", name or encoder.name, _address(listener))
        server.run(sockets=[listener])


def server_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs `app`."""
    import uvicorn

    return uvicorn.Config(
        app,
        http=with_deadline(settings.read_timeout),
        ws="none",
        access_log=False,  # its lines would hold people's queries
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.read_timeout + settings.request_timeout) + 1,
        limit_concurrency=_CONNECTIONS,
    )


def _guarded(settings: ServeSettings, host: str, no_key: bool) -> ServeSettings:
    """The settings, with the names to answer to where no key keeps strangers out."""
    if settings.api_key is not None or no_key:
        return settings
    if not is_loopback(host):
        raise DistilvlError(
            f"whoever reaches {host} could use the model and see the pictures.",
            "Set a key (--api-key-env, --api-key-file), or pass --no-key if that is meant.",
        )
    return replace(settings, hosts=loopback_names(host))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise DistilvlError(
            f"cannot listen at {host}, port {port}: {error.strerror}.", "Choose another --host or --port."
        ) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
