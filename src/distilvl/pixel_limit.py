"""How many pixels a picture may have: one setting, in the environment, so that worker processes have it too."""

from __future__ import annotations

import os

from distilvl.errors import DistilvlError

MAX_PIXELS_VARIABLE = "DISTILVL_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 200_000_000
"""What the largest sensors of phones give."""


def max_pixels() -> int:
    """Pixels that a picture may have at most.

    Raises:
        DistilvlError: the environment names something else than a number above 0.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not given:
        return DEFAULT_MAX_PIXELS
    try:
        limit = int(given)
    except ValueError:
        limit = 0
    if limit < 1:
        raise DistilvlError(
            f"{MAX_PIXELS_VARIABLE} is {given!r}.", "Set it to a number of pixels, such as 200000000, or unset it."
        )
    return limit


def set_max_pixels(limit: int) -> None:
    """Allow pictures of `limit` pixels from now on, in this process and in those that it starts.

    Raises:
        DistilvlError: less than one.
    """
    if limit < 1:
        raise DistilvlError(f"the limit of pixels is {limit}.", "Give a number above 0.")
    os.environ[MAX_PIXELS_VARIABLE] = str(int(limit))
