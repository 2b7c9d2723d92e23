"""`distilvl serve`: load the model, open the index, listen until told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import warnings
from dataclasses import replace
from pathlib import Path

from PIL import Image

from distilvl.data.left_out import all_left_out, read_left_out
from distilvl.errors import DistilvlError, require
from distilvl.serving.settings import ServeSettings, is_loopback, loopback_names

logger = logging.getLogger("distilvl")


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
    from distilvl.models import load_encoder
    from distilvl.search import Index
    from distilvl.serving.app import create_app
    from distilvl.serving.connection import server_config

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
