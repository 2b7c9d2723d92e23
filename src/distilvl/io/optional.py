"""Packages that only some readers need."""

from __future__ import annotations

import importlib
from typing import Any

from distilvl.errors import DistilvlError


def require(module: str, extra: str) -> Any:
    """The module, typed loosely as it may be absent; `DistilvlError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise DistilvlError(
            f"this data set needs the package {package}.", f"Install it: pip install 'distilvl[{extra}]'."
        ) from error
