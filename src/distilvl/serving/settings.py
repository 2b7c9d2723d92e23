"""`ServeSettings`: limits and key of a server, and where its key is read from."""

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from distilvl.errors import DistilvlError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Limits of one server; all are positive.

    Attributes:
        max_batch, max_wait_ms: items that the model encodes at a time, and how long a batch waits for more.
        max_items, max_upload_mb: texts and pictures of one request, and size of its body, millions of bytes.
        max_queue: items that are waiting or being encoded, of all requests; beyond it requests are turned away.
        max_pixels: of one picture, whatever the limit elsewhere is; four times as many wait decoded, of all requests.
        read_timeout: seconds in which a request's header, and then its body, must have arrived.
        request_timeout: seconds from there to the response.
        api_key, hosts: what clients must send, and names by which they may call the server; None for any.
    """

    max_batch: int = 32
    max_wait_ms: float = 5.0
    max_items: int = 256
    max_queue: int = 1024
    max_upload_mb: float = 20.0
    max_pixels: int = 50_000_000
    read_timeout: float = 30.0
    request_timeout: float = 60.0
    api_key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and not 0 < value < float("inf"):
                raise DistilvlError(f"{entry.name} is {value}.", "Give a positive number.")
        if self.max_items > self.max_queue:
            message = f"max_queue is {self.max_queue}, less than the {self.max_items} items of one request (max_items)."
            raise DistilvlError(message, "Raise the one or lower the other.")
        key = self.api_key
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise DistilvlError("the API key is empty or holds characters that no header takes.", "Choose another one.")


def read_key(variable: str | None, file: Path | None) -> str | None:
    """The key in an environment variable or a file, without white space around it; None if neither is named.

    `DistilvlError`: both are named, or there is no key where one should be.
    """
    if variable is not None and file is not None:
        raise DistilvlError("two places for the key are given.", "Give --api-key-env or --api-key-file.")
    if variable is not None:
        if key := os.environ.get(variable, "").strip():
            return key
        raise DistilvlError(f"the environment variable {variable} is not set.", "Put the key into it.")
    if file is None:
        return None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DistilvlError(f"the key's file {file} cannot be read.", "Check the path.") from error
    if not key:
        raise DistilvlError(f"the key's file {file} is empty.", "Write the key into it.")
    return key
