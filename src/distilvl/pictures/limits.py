"""How large a picture may be: one setting, in the environment, so that worker processes have it too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from distilvl.errors import DistilvlError

MAX_PIXELS_VARIABLE = "DISTILVL_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 200_000_000  # what the largest sensors of phones give
LONGEST = 100
"""Most that one side may have of the other: a longer strip would be enlarged to thousands of times what towers take."""

_lock = threading.Lock()
_lifted = 0
_own: int | None = None


def max_pixels() -> int:
    """Pixels that a picture may have at most; `DistilvlError` where the environment names no number above 0."""
    given = os.environ.get(MAX_PIXELS_VARIABLE, "") or str(DEFAULT_MAX_PIXELS)
    with suppress(ValueError):
        if int(given) > 0:
            return int(given)
    remedy = "Set it to a number of pixels, such as 200000000, or unset it."
    raise DistilvlError(f"{MAX_PIXELS_VARIABLE} is {given!r}.", remedy)


def set_max_pixels(limit: int) -> None:
    """Allow pictures of `limit` pixels, at least 1, from now on, in this process and in those that it starts."""
    if limit < 1:
        raise DistilvlError(f"the limit of pixels is {limit}.", "Give a number above 0.")
    os.environ[MAX_PIXELS_VARIABLE] = str(int(limit))


@contextmanager
def pillows_limit_lifted() -> Iterator[None]:
    """Without Pillow's own limit, a global of the user's program, for as long as a picture above it is decoded."""
    from PIL import Image  # here, as the command line asks for the setting alone

    global _lifted, _own
    with _lock:
        if _lifted == 0:
            _own = Image.MAX_IMAGE_PIXELS
            Image.MAX_IMAGE_PIXELS = None
        _lifted += 1
    try:
        yield
    finally:
        with _lock:
            _lifted -= 1
            if _lifted == 0:
                Image.MAX_IMAGE_PIXELS = _own
