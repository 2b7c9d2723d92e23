"""What is known of a JPEG from its bytes alone: how many scans it has, and whether its end is all that is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

MOST_SCANS = 100
"""Of one picture: encoders write about 10, and each scan goes over all pixels again."""

_SCAN = b"\xff\xda"
_END = b"\xff\xd9"
# Within the pixels' data a byte FF is followed by 00 or by a restart marker.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_COEFFICIENTS = 64

# Any bits that say something else than the zeros that a decoder puts in the place of what is missing.
_OTHER_END = b"\x5b\xa7\x35\xc9\x6e\x93\x1d\xb2" * 8


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG's do."""
    return data.startswith(b"\xff\xd8")


def has_too_many_scans(data: bytes) -> bool:
    """Whether decoding goes over the pixels more than `MOST_SCANS` times."""
    # The markers of previews in the metadata are counted, too, so that few suffice to know.
    if data.count(_SCAN) <= MOST_SCANS:
        return False
    return sum(marker == 0xDA for marker, _, _ in _segments(data)) > MOST_SCANS


def with_other_ends(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG, ended in two ways at the end of its data; None where it lacks a whole scan.

    What is there decodes alike in both, what is missing differs.
    """
    end = len(data)
    frame: bytes | None = None
    precision: dict[int, list[int]] = {}
    progressive = False
    scans = 0
    for marker, body, at in _segments(data):
        if marker == 0xD9:
            end = at
        if marker in _FRAMES:
            frame, progressive = body, marker in _PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            _refine(precision, body, progressive)
    components = [] if frame is None or len(frame) < 6 else list(frame[6 : 6 + 3 * frame[5] : 3])
    whole = [0] * _COEFFICIENTS
    if not components or not scans or any(precision.get(component) != whole for component in components):
        return None
    cut = data[:end].rstrip(b"\xff")
    return cut + _END, cut + _OTHER_END + _END


def missing_share(one: Image.Image, other: Image.Image, block: int) -> float:
    """The share of the pixels, in reading order, from the first on in which the two differ.

    Args:
        one: what the first of `with_other_ends` decodes to.
        other: what the second one does.
        block: height of a row of blocks, pixels.
    """
    differs = (np.asarray(one) != np.asarray(other)).reshape(one.height, one.width, -1).any(axis=2)
    rows = differs.any(axis=1)
    if not rows.any():
        return 0.0
    top = int(rows.argmax())
    left = int(differs[top : top + block].any(axis=0).argmax())
    missing = (one.height - top) * one.width - left * min(block, one.height - top)
    return missing / (one.width * one.height)


def _refine(precision: dict[int, list[int]], scan: bytes, progressive: bool) -> None:
    """Note how many low bits of each coefficient are still to come after a scan, by component."""
    if not scan or len(scan) < 1 + 2 * scan[0] + 3:
        return
    first, last, bits = scan[1 + 2 * scan[0] : 4 + 2 * scan[0]]
    if not progressive:
        first, last, bits = 0, _COEFFICIENTS - 1, 0
    for component in scan[1 : 1 + 2 * scan[0] : 2]:
        left = precision.setdefault(component, [99] * _COEFFICIENTS)
        for k in range(first, min(last, _COEFFICIENTS - 1) + 1):
            left[k] = bits & 15


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Markers of the first picture in the bytes, each with its body and its place, up to the end of either."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker in (0xD8, 0xD9):
            yield marker, b"", found.start()
            if marker == 0xD9:
                return
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            return
        yield marker, data[at + 2 : at + length], found.start()
        at += length
