"""The key that clients must send, from where it does not show in a list of processes."""

from __future__ import annotations

import os
from pathlib import Path

from distilvl.errors import DistilvlError


def read_key(variable: str | None, file: Path | None) -> str | None:
    """The key in an environment variable or a file, without white space around it; None if neither is named.

    Raises:
        DistilvlError: both are named, or there is no key where one should be.
    """
    if variable is not None and file is not None:
        raise DistilvlError("two places for the key are given.", "Give --api-key-env or --api-key-file.")
    if variable is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise DistilvlError(f"the environment variable {variable} is not set.", "Put the key into it.")
        return key
    if file is None:
        return None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DistilvlError(f"the key's file {file} cannot be read.", "Check the path.") from error
    if not key:
        raise DistilvlError(f"the key's file {file} is empty.", "Write the key into it.")
    return key
