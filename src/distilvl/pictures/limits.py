"""Limits that keep a picture from taking more memory than it is worth, beside the number of its pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

LONGEST = 100
"""Most that one side may have of the other: a longer strip would be enlarged, before it is cropped, to thousands of
times the pixels that a tower takes."""

_lock = threading.Lock()
_lifted = 0
_own: int | None = None


@contextmanager
def pillows_limit_lifted() -> Iterator[None]:
    """Without Pillow's own limit, which warns from 89 and refuses from 179 million pixels on.

    It is a global of Pillow's that belongs to the user's program, so it is touched only while a picture above it is
    decoded, whose size was found to be within ours before, and then is what it was.
    """
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
