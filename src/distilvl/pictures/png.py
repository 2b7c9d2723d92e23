"""PNGs before Pillow sees them: text that would not fit its limits is left out, and a cut off end is filled up."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# Of all texts, only these say something about how the picture is to be shown: its orientation.
_NEEDED = frozenset({b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp"})
_LONGEST_TEXT = 1 << 20
_LONGEST_PROFILE = 1 << 24
_PILLOWS_PROFILE = 1 << 20  # Pillow refuses the whole picture for a longer one

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_UP = 2  # the filter under which zeros repeat the row above


def is_png(data: bytes) -> bool:
    """Whether the bytes begin as a PNG's do."""
    return data.startswith(_SIGNATURE)


def without_texts(data: bytes) -> tuple[bytes, bytes | None]:
    """The same picture without texts, but for the orientation, and its colour profile where Pillow would refuse it.

    A text of some kilobytes may unpack to gigabytes; no more than a megabyte of any is unpacked.
    """
    left_out, profile = [], None
    for kind, start, end in _chunks(data):
        if kind in _TEXTS:
            if not _is_needed(kind, data[start + 8 : end - 4]):
                left_out.append((start, end))
        elif kind == b"iCCP" and (found := _long_profile(data[start + 8 : end - 4])) is not None:
            left_out.append((start, end))
            profile = found
    if not left_out:
        return data, None
    kept, at = [], 0
    for start, end in left_out:
        kept.append(data[at:start])
        at = end
    return b"".join([*kept, data[at:]]), profile or None


def completed(data: bytes, most_missing: float) -> bytes | None:
    """A PNG that ends early, filled up with copies of its last row; None where it does not, or lacks more than that."""
    kept, packed, cut_off = [], [], True
    for kind, start, end in _chunks(data):
        if kind == b"IEND":
            cut_off = False
            break
        if kind == b"IDAT":
            packed.append(data[start + 8 : max(start + 8, end - 4) if end <= len(data) else len(data)])
        elif end <= len(data) and not packed:
            kept.append(data[start:end])
    if not kept or not kept[0].startswith(b"\0\0\0\rIHDR"):
        return None
    rows = _row_lengths(kept[0][8:21])
    expected = sum(count * length for count, length in rows)
    try:
        raw = zlib.decompressobj().decompress(b"".join(packed), expected)
    except zlib.error:
        return None
    if len(raw) < (1 - most_missing) * expected or (len(raw) == expected and not cut_off):
        return None
    body = zlib.compress(_filled(raw, rows), 1)
    return b"".join([_SIGNATURE, *kept, _chunk(b"IDAT", body), _chunk(b"IEND", b"")])


def ends_early(data: bytes) -> bool:
    """Whether there is data for fewer rows than the header says, though all may be well formed; unpacks all of it."""
    unpacker = zlib.decompressobj()
    expected = found = 0
    try:
        for kind, start, end in _chunks(data):
            if kind == b"IHDR":
                expected = sum(count * length for count, length in _row_lengths(data[start + 8 : start + 21]))
            elif kind == b"IDAT":
                packed = data[start + 8 : end - 4]
                while packed and found < expected:
                    found += len(unpacker.decompress(packed, 1 << 20))
                    packed = unpacker.unconsumed_tail
    except (zlib.error, struct.error):
        return False
    return found < expected


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk; the end of the last one may lie beyond the bytes."""
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _is_needed(kind: bytes, body: bytes) -> bool:
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _NEEDED:
        return False
    if kind == b"zTXt":
        return _unpacked(rest[1:], _LONGEST_TEXT) is not None
    if kind == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)
        return len(packed) == 3 and _unpacked(packed[2], _LONGEST_TEXT) is not None
    return True


def _long_profile(body: bytes) -> bytes | None:
    """The profile in a chunk, if it is one that Pillow refuses the picture for; empty if it is too long for us, too."""
    packed = body.partition(b"\0")[2][1:]
    if len(packed) < _PILLOWS_PROFILE // 1100 or _unpacked(packed, _PILLOWS_PROFILE) is not None:
        return None
    return _unpacked(packed, _LONGEST_PROFILE) or b""


def _unpacked(packed: bytes, longest: int) -> bytes | None:
    """What deflated bytes unpack to; None if that is longer. What is damaged is as long as it is."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(packed, longest)
    except zlib.error:
        return b""
    return None if unpacker.unconsumed_tail else found


def _row_lengths(header: bytes) -> list[tuple[int, int]]:
    """How many rows of how many bytes, their filter byte included, each pass over the picture has."""
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _CHANNELS.get(colours, 0)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    return [(rows, 1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0]


def _filled(raw: bytes, rows: list[tuple[int, int]]) -> bytes:
    out, at = [raw], 0
    for count, length in rows:
        for _ in range(count):
            at += length
            if at <= len(raw):
                continue
            there = max(0, len(raw) - (at - length))
            out.append(bytes(length - there) if there else bytes([_UP]) + bytes(length - 1))
    return b"".join(out)
