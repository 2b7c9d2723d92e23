"""The bytes of JPEG and PNG files, before Pillow sees them: scans, long texts, ends that are cut off."""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_MOST_CHUNKS = 50_000  # of 8 KiB of pixels each, as libpng writes them, 400 MB
# Of one picture: encoders write about 10, and each goes over all pixels again, in some 5 ns each.
_MOST_SCANS, _USUAL_SCANS, _MOST_VISITS = 100, 16, 2_000_000_000
_JPEG, _SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
# Within the pixels' data a byte FF is followed by 00 or by a restart marker.
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_COEFFICIENTS = 64
# Any bits that say something else than the zeros that a decoder puts in the place of what is missing.
_OTHER_END = b"\x5b\xa7\x35\xc9\x6e\x93\x1d\xb2" * 8


def most_scans(data: bytes, pixels: int) -> int | None:
    """How often decoding may go over the pixels of this JPEG, where it goes more often; none: it is another picture."""
    most = max(_USUAL_SCANS, min(_MOST_SCANS, _MOST_VISITS // max(1, pixels)))
    # The markers of previews in the metadata are counted, too, so that few suffice to know.
    if not data.startswith(_JPEG) or data.count(_SCAN) <= most:
        return None
    return most if sum(marker == 0xDA for marker, _, _ in _segments(data)) > most else None


def with_other_ends(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG ended in two ways, in which what is missing decodes differently; None where it lacks a whole scan."""
    end, frame, progressive = len(data), b"", False
    precision: dict[int, list[int]] = {}
    for marker, body, at in _segments(data):
        if marker == 0xD9:
            end = at
        if marker in _FRAMES:
            frame, progressive = body, marker in _PROGRESSIVE
        elif marker == 0xDA:
            _refine(precision, body, progressive)
    components = [] if len(frame) < 6 else list(frame[6 : 6 + 3 * frame[5] : 3])
    if not components or any(precision.get(component) != [0] * _COEFFICIENTS for component in components):
        return None
    cut = data[:end].rstrip(b"\xff")
    return cut + _END, cut + _OTHER_END + _END


def missing_share(one: Image.Image, other: Image.Image, block: int) -> float:
    """Share of the pixels from where both of `with_other_ends` differ; `block` is the height of a row of blocks."""
    differs = (np.asarray(one) != np.asarray(other)).reshape(one.height, one.width, -1).any(axis=2)
    rows = differs.any(axis=1)
    if not rows.any():
        return 0.0
    top = int(rows.argmax())
    left = int(differs[top : top + block].any(axis=0).argmax())
    return ((one.height - top) * one.width - left * min(block, one.height - top)) / (one.width * one.height)


def _refine(precision: dict[int, list[int]], scan: bytes, progressive: bool) -> None:
    """Note how many low bits of each coefficient are still to come after a scan, by component."""
    if not scan or len(scan) < 1 + 2 * scan[0] + 3:
        return
    first, last, bits = scan[1 + 2 * scan[0] : 4 + 2 * scan[0]] if progressive else (0, _COEFFICIENTS - 1, 0)
    for component in scan[1 : 1 + 2 * scan[0] : 2]:
        left = precision.setdefault(component, [99] * _COEFFICIENTS)
        for k in range(first, min(last, _COEFFICIENTS - 1) + 1):
            left[k] = bits & 15


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Markers of the first picture in the bytes, each with its body and its place, up to the end of either."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in (0xD8, 0xD9):
            length = 0
        elif length < 2 or at + length > len(data):
            return
        yield marker, data[at + 2 : at + length], found.start()
        if marker == 0xD9:
            return
        at += length


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# Of all texts, only these say something about how the picture is to be shown: its orientation.
_NEEDED = frozenset({b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp"})
_LONGEST_TEXT, _LONGEST_PROFILE = 1 << 20, 1 << 24
_PILLOWS_PROFILE = 1 << 20  # Pillow refuses the whole picture for a longer one
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_UP = 2  # the filter under which zeros repeat the row above


def without_texts(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG without texts, but for the orientation, and its colour profile where Pillow would refuse it.

    A text may unpack to gigabytes; no more than a megabyte of any is unpacked. Other bytes than a PNG's stay.
    `ValueError` for more chunks than any program writes, each of which takes time to look at.
    """
    if not data.startswith(_SIGNATURE):
        return data, None
    kept, at, profile = [], 0, None
    for number, (kind, start, end) in enumerate(_chunks(data)):
        if number == _MOST_CHUNKS:
            raise ValueError(f"it has more than {_MOST_CHUNKS:,} chunks")
        body = data[start + 8 : end - 4] if kind in _TEXTS or kind == b"iCCP" else b""
        if kind == b"iCCP" and (found := _long_profile(body)) is not None:
            profile = found
        elif kind not in _TEXTS or _is_needed(kind, body):
            continue
        kept.append(data[at:start])
        at = end
    return (b"".join([*kept, data[at:]]) if kept else data), profile or None


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
    unpacker, expected, found = zlib.decompressobj(), 0, 0
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
    packed: bytes | None = b""
    if kind == b"zTXt":
        packed = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":
        packed = next(iter(rest[2:].split(b"\0", 2)[2:]), None)
    return keyword in _NEEDED and packed is not None and _unpacked(packed, _LONGEST_TEXT) is not None


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
            if at > len(raw):
                there = max(0, len(raw) - (at - length))
                out.append(bytes(length - there) if there else bytes([_UP]) + bytes(length - 1))
    return b"".join(out)
