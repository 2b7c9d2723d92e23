"""`distilvl serve`: load the model, open the index, listen until told to stop."""

import ipaddress
import logging
import signal
import socket
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from PIL import Image

from distilvl.errors import DistilvlError, require
from distilvl.serving.settings import ServeSettings

logger = logging.getLogger("distilvl")


def serve(
    model: str | None, index: Path | None, settings: ServeSettings, *,
    host: str = "127.0.0.1", port: int = 8000, name: str | None = None, no_key: bool = False,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT; then answer what is under way, and return.

    Args:
        model: what `distilvl.models.load_encoder` takes; None for the index's own.
        index: to search, with the page; None for embeddings only.
        host, port: address to listen at; port 0 is any that is free.
        name: what clients call the model; its own name if not given.
        no_key: let everyone in who reaches the address, by whatever name.

    `DistilvlError`: nothing to serve, a public address without a key, an address that is taken, a model or index that
    cannot be opened, or the extra `serve` is not installed.
    """
    settings = _guarded(settings, host, no_key)
    uvicorn = require("uvicorn", "fastapi", "prometheus_client", extra="serve", why="serving")
    from distilvl.models import load_encoder
    from distilvl.search import Index
    from distilvl.search.about import About
    from distilvl.serving.app import create_app
    from distilvl.serving.connection import server_config

    # Who waits for Python's lock asks for it after 2 ms instead of 5: a small request passes it many times on its way,
    # and a large one holds it.
    sys.setswitchinterval(0.002)
    # Between once and twice its limit Pillow only warns; we refuse by a limit of our own.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    if model is not None:
        encoder = load_encoder(model)
    elif index is not None:
        encoder = Index.open(index).encoder
    else:
        raise DistilvlError("there is nothing to serve.", "Give --model, --index, or both.")
    if index is not None:
        About.load(index).left_out(index).log(str(index))
    open_index = None if index is None else lambda batched: Index.open(index, model=batched)
    with _listen(host, port) as listener:
        app = create_app(encoder, settings, name=name, open_index=open_index)
        server = uvicorn.Server(server_config(app, settings))
        # The server passes a signal on once it has stopped; being told to stop is no failure of this command.
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, server.handle_exit)
        address, number = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        logger.info("serving %s at http://%s:%d", name or encoder.name, shown, number)
        server.run(sockets=[listener])


def _guarded(settings: ServeSettings, host: str, no_key: bool) -> ServeSettings:
    """The settings, with the names to answer to where no key keeps strangers out.

    A web page from elsewhere can have its own name lead to 127.0.0.1 (DNS rebinding) and would then read the answers
    as its own; the Host header that browsers send still has that page's name.
    """
    if settings.api_key is not None or no_key:
        return settings
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        message = f"whoever reaches {host} could use the model and see the pictures."
        raise DistilvlError(message, "Set a key (--api-key-env, --api-key-file), or pass --no-key if that is meant.")
    return replace(settings, hosts=frozenset({host, "localhost", "127.0.0.1", "::1"}))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        message = f"cannot listen at {host}, port {port}: {error.strerror}."
        raise DistilvlError(message, "Choose another --host or --port.") from error
