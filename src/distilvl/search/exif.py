"""When a photograph was taken, as its file says."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta

from PIL import ExifTags, Image

from distilvl.pictures import open_image

_TIMES = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)

# What damaged tags make Pillow raise; a picture is no worse for them.
_DAMAGED = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    struct.error,
)

_XMP_TIMES = (b"exif:DateTimeOriginal", b"photoshop:DateCreated", b"exif:DateTimeDigitized", b"xmp:CreateDate")
_TIFF_XMP = 700
_LONGEST_XMP = 1 << 20

_DATE = r"(\d{4})\s*([-:/. ])\s*(\d{1,2})\s*\2\s*(\d{1,2})(?!\d)"
_HALF = r"a\.?\s?m\.?|p\.?\s?m\.?|[ap]\.?|[πμ]\.?\s?μ\.?|上午|下午|오전|오후|午前|午後"
_REST = rf"s?(?:[.:,]\d+)?\s*({_HALF})?\s*(?:(?:z|utc|gmt|[a-z]{{1,4}}t)?\s*(?:[+-]\d\d?(?::?\d\d){{0,2}})?)"
_CLOCKS = tuple(
    re.compile(clock + _REST, re.A | re.S)
    for clock in (
        r"(\d{1,2})\s*([:.\-])\s*(\d{1,2})(?:\s*\2\s*(\d{1,2}))?",
        r"(\d{1,2})\s*(h)\s*(\d{1,2})(?:\s*m\s*(\d{1,2}))?",
        r"(\d\d)()(\d\d)(\d\d)?",
    )
)
_NO_CLOCK = re.compile(r"[t\s:,._/-]*(?:z|\+\d\d:?\d\d)?")
_SPACED = re.compile(rf"{_DATE}(?:(?:[t\s:,_]+|-)({_HALF})?\s*(\d.*))?(.*)", re.A | re.S)
_PACKED = re.compile(rf"(\d{{4}})()(\d\d)(\d\d)(?:[t\s_-]*({_HALF})?\s*(\d.*))?(.*)", re.A | re.S)
_ASCTIME = re.compile(r"[a-z]{3},?\s+([a-z]{3})\s+(\d{1,2})\s+(\d\d?):(\d\d):(\d\d)\s+(\d{4})", re.A | re.I)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Before photography, and far from now, are the zeros of some clock: 0001, 1601, 9999.
_FIRST_YEAR, _LAST_YEAR = 1800, 2199


def capture_time(data: bytes) -> datetime | None:
    """Local time of the camera from the EXIF or XMP of an encoded image; None where there is none, or nonsense.

    Of the times that they have, the first that is one: the picture's, the digitisation's, the file's. An offset from
    UTC, where there is one, is left aside: the clock of the place is what people remember.
    """
    try:
        written = _written(open_image(data))
        return next((time for value in written if (time := parse_time(value)) is not None), None)
    except _DAMAGED:
        return None


def parse_time(value: object) -> datetime | None:
    """`2021:07:30 18:05:09`, which is what the standard prescribes, or what is nearly that.

    Read are other separators or none, numbers without their zero, a time without seconds or none, fractions, zones,
    24:00:00 (which begins the next day; 24:15:00 is how clocks from 1 to 24 write a quarter past midnight), clocks of
    twelve hours with their half of the day before or behind, C's `Fri Jul 30 18:05:09 2021`, and what a NUL and
    anything after it follow. Years have four digits and come first: what could be read in two ways, or has a part that
    is not understood, is not read.
    """
    if isinstance(value, tuple | list):
        value = next(iter(value), None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str):
        return None
    text = value.lstrip(" \0\t\r\n\"'\ufeff").split("\0")[0].strip(" \t\r\n\"'")[:60]
    text = unicodedata.normalize("NFKC", text).lower().strip()  # blanks, digits and letters have several codes
    if found := _ASCTIME.fullmatch(text):
        month, day, hour, minute, second, year = found.groups()
        if month.lower() not in _MONTHS:
            return None
        return _time(year, str(1 + _MONTHS.index(month.lower())), day, hour, minute, second, "")
    found = _SPACED.fullmatch(text) or _PACKED.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, before, clock, rest = found.groups()
    if clock is None:
        return _time(year, month, day, None, None, None, "") if _NO_CLOCK.fullmatch(rest) else None
    shown = next((match for pattern in _CLOCKS if (match := pattern.fullmatch(clock))), None)
    if shown is None or (before and shown[5]):
        return None
    return _time(year, month, day, shown[1], shown[3], shown[4], before or shown[5] or "")


def _written(image: Image.Image) -> Iterator[object]:
    """The times in a picture's EXIF, whichever of its tables they are in, then those of its XMP."""
    try:
        exif = image.getexif()
        # Scanners write all of them into the outer table.
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        yield from [table.get(tag) for tag in _TIMES for table in (inner, exif)]
    except _DAMAGED:
        pass
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or _tiff_xmp(image)
    text = xmp.encode("utf-8", errors="replace") if isinstance(xmp, str) else xmp
    if isinstance(text, bytes):
        for name in _XMP_TIMES:
            found = re.search(re.escape(name) + rb"""\s*(?:=\s*["']|>\s*)([^"'<]{1,60})""", text[:_LONGEST_XMP])
            yield found[1] if found else None


def _tiff_xmp(image: Image.Image) -> object:
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else tags.get(_TIFF_XMP)


def _time(
    year: str, month: str, day: str, hour: str | None, minute: str | None, second: str | None, half: str
) -> datetime | None:
    """The time of these digits, of the `half` of the day that is written; None if no clock shows them."""
    if not _FIRST_YEAR <= int(year) <= _LAST_YEAR:
        return None
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    if half:
        afternoon = half[0] in "pμ" or half in ("下午", "오후", "午後")
        if hours > (23 if afternoon else 12):
            return None
        hours = hours if hours > 12 else hours % 12 + 12 * afternoon
    if hours == 24 and (minutes or seconds):
        hours = 0  # clocks that count from 1 to 24 show the first hour of a day so
    if hours > 24 or minutes > 59 or seconds > 60:
        return None
    try:
        return datetime(int(year), int(month), int(day)) + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except (ValueError, OverflowError):
        return None
