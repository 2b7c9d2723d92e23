"""When a photograph was taken, as its file says."""

from __future__ import annotations

import struct
from datetime import datetime

from PIL import ExifTags, Image

from distilvl.pictures import open_image


def capture_time(data: bytes) -> datetime | None:
    """Local time of the camera from the EXIF of an encoded image; None where there is none, or nonsense.

    Of the three times that EXIF has, the first that is there: the picture's, the digitisation's, the file's.
    """
    try:
        exif = open_image(data).getexif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        values = [
            inner.get(ExifTags.Base.DateTimeOriginal),
            inner.get(ExifTags.Base.DateTimeDigitized),
            exif.get(ExifTags.Base.DateTime),
        ]
    # What damaged tags make Pillow raise; a picture is no worse for them.
    except (
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        ArithmeticError,
        struct.error,
    ):
        return None
    return next((time for value in values if (time := _parsed(value)) is not None), None)


def _parsed(value: object) -> datetime | None:
    """`2021:07:30 18:05:09`, which is what the standard prescribes, or with other separators of the date."""
    if isinstance(value, bytes):
        value = value.decode("ascii", errors="replace")
    if not isinstance(value, str):
        return None
    text = value.strip(" \0")[:19].replace("-", ":").replace("/", ":").replace("T", " ")
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
