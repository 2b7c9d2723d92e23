"""The Hugging Face hub where there may be no network: its library waits two minutes, and asks again for each file."""

from __future__ import annotations

import difflib
import logging
import socket
import urllib.request
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

logger = logging.getLogger("distilvl")
_WAIT_S = 1.5


@cache
def look_for_hub() -> None:
    """Where the hub cannot be reached in a second and a half, have its library use its cache alone, in this process.

    Behind a proxy that is for the library to find out.
    """
    from huggingface_hub import constants

    if constants.is_offline_mode() or urllib.request.getproxies():
        return
    address = urlsplit(constants.ENDPOINT)
    if not _is_there(address.hostname or "", address.port or (80 if address.scheme == "http" else 443)):
        logger.info("%s cannot be reached; of the hub only what was fetched before is used", address.hostname)
        constants.HF_HUB_OFFLINE = True


def may_be_had(model: str) -> bool:
    """Whether a model of that id is in the hub's cache, or may be fetched."""
    from huggingface_hub import constants

    names = [model] if "/" in model else [model, f"sentence-transformers/{model}"]
    folders = [Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}") for name in names]
    return not constants.is_offline_mode() or any(folder.is_dir() for folder in folders)


def _is_there(host: str, port: int) -> bool:
    found: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), _WAIT_S).close()
        except OSError:
            found.append(False)
        else:
            found.append(True)

    # In a thread: to look a name up has no limit of its own.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return bool(found and found[0])


def like_it(path: str) -> str:
    """ "Did you mean ...?" with what lies beside `path` under a name like its own; empty where nothing does."""
    place = Path(path)
    try:
        names = sorted(entry.name for entry in place.parent.iterdir())
    except OSError:
        return ""
    near = difflib.get_close_matches(place.name, names, n=2)
    return f"Did you mean {' or '.join(str(place.parent / name) for name in near)}?" if near else ""
