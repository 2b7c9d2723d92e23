"""What is read from a photograph's file: content hash, picture, thumbnail, and when it was taken (EXIF, XMP)."""

import io
import re
import stat
import struct
import unicodedata
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from PIL import ExifTags, Image

from distilvl.data.folders import SPECIAL, image_files
from distilvl.data.left_out import MISSING, NOT_DECODED, NOT_READ, LeftOut
from distilvl.data.records import NOT_THERE, FileImage
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key
from distilvl.pictures import decode_image, open_image

THUMBNAIL_SIDE, _THUMBNAIL_QUALITY = 256, 80


@dataclass(frozen=True)
class PhotoFile:
    """An image file as the disk tells of it: absolute `path` with `/`, bytes, nanoseconds; or the `reason` why not."""

    path: str
    size: int
    mtime_ns: int
    reason: str = ""

    @property
    def stamp(self) -> tuple[int, int]:
        """Size and time; a file whose stamp is the same is taken to be unchanged."""
        return self.size, self.mtime_ns

    @property
    def modified(self) -> datetime:
        """Time of the last change, local, whole seconds; 1970 where the disk gives a time that no calendar has."""
        try:
            return datetime.fromtimestamp(self.mtime_ns // 1_000_000_000)
        except (ValueError, OverflowError, OSError):
            return datetime(1970, 1, 1)


@dataclass(frozen=True)
class Picture:
    """A file that was read.

    `id` is its content hash, 32 hex digits, empty when the disk did not give the bytes. `image` is None, and the JPEG
    `thumbnail` empty, when the content was known already. `reason` says in a sentence why it cannot be decoded, and
    `kind` in a phrase by which such files are counted; else they are empty.
    """

    file: PhotoFile
    id: str
    image: Image.Image | None = None
    thumbnail: bytes = b""
    taken: datetime | None = None
    reason: str = ""
    kind: str = ""

    @property
    def pixels(self) -> int:
        """How much memory its image takes."""
        return 0 if self.image is None else self.image.width * self.image.height


def list_files(folder: Path, *, include_hidden: bool = False, left_out: LeftOut | None = None) -> list[PhotoFile]:
    """All image files in `folder` and the folders in it, in the order of their paths; `DistilvlError` without one.

    A file that the disk does not tell of has a `reason`, and no stamp that a good one has. With `include_hidden`
    hidden folders are read too. `left_out` is told of links to nothing, of what is no file, of folders that may not be
    listed, and of all that `image_files` leaves out.
    """
    left_out, found = LeftOut() if left_out is None else left_out, []
    for name in image_files(folder, include_hidden=include_hidden, skip_bad=True, left_out=left_out):
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            if error.errno not in NOT_THERE:
                found.append(PhotoFile(path.as_posix(), -1, 0, _unread(path.as_posix(), error)))
            else:
                left_out.add(MISSING, name)
            continue
        if stat.S_ISREG(status.st_mode):
            found.append(PhotoFile(path.as_posix(), status.st_size, status.st_mtime_ns))
        else:  # reading a pipe would never end
            left_out.add(SPECIAL, name)
    return found


def read_picture(file: PhotoFile, known: Container[str]) -> Picture:
    """Read a file; decode it unless its content hash is in `known`.

    What is wrong is told without the advice of errors, which is about other commands: here such files are left out.
    """
    if file.reason:
        return Picture(file, "", reason=file.reason, kind=NOT_READ)
    try:
        data = FileImage(file.path).read()
    except BadImageError as error:
        return Picture(file, "", reason=error.problem, kind=error.reason)
    key = image_key(data).hex()
    if key in known:
        return Picture(file, key)
    try:
        image = decode_image(data, file.path)
    except BadImageError as error:
        return Picture(file, key, reason=error.problem, kind=error.reason or NOT_DECODED)
    return Picture(file, key, image, thumbnail(image), capture_time(data))


def thumbnail(image: Image.Image) -> bytes:
    """A JPEG of `image`, at most 256 pixels wide or high, never enlarged."""
    scale = min(1.0, THUMBNAIL_SIDE / max(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    small = image.resize((size[0], size[1]), Image.Resampling.BICUBIC, reducing_gap=2.0) if scale < 1 else image
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()


def _unread(path: str, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}."


_TIMES = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)

# What damaged tags make Pillow raise; a picture is no worse for them.
_DAMAGED = (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError,
            AttributeError, ArithmeticError, struct.error)  # fmt: skip

_XMP_TIMES = (b"exif:DateTimeOriginal", b"photoshop:DateCreated", b"exif:DateTimeDigitized", b"xmp:CreateDate")
_TIFF_XMP, _LONGEST_XMP = 700, 1 << 20

_DATE = r"(\d{4})\s*([-:/. ])\s*(\d{1,2})\s*\2\s*(\d{1,2})(?!\d)"
_HALF = r"a\.?\s?m\.?|p\.?\s?m\.?|[ap]\.?|[πμ]\.?\s?μ\.?|上午|下午|오전|오후|午前|午後"
_REST = rf"s?(?:[.:,]\d+)?\s*({_HALF})?\s*(?:(?:z|utc|gmt|[a-z]{{1,4}}t)?\s*(?:[+-]\d\d?(?::?\d\d){{0,2}})?)"
_SEPARATED = r"(\d{1,2})\s*([:.\-])\s*(\d{1,2})(?:\s*\2\s*(\d{1,2}))?"
_LETTERED = r"(\d{1,2})\s*(h)\s*(\d{1,2})(?:\s*m\s*(\d{1,2}))?"
_CLOCKS = [re.compile(clock + _REST, re.A | re.S) for clock in (_SEPARATED, _LETTERED, r"(\d\d)()(\d\d)(\d\d)?")]
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
    UTC is left aside: the clock of the place is what people remember.
    """
    try:
        return next((time for value in _written(open_image(data)) if (time := parse_time(value)) is not None), None)
    except _DAMAGED:
        return None


def parse_time(value: object) -> datetime | None:
    """`2021:07:30 18:05:09`, which is what the standard prescribes, or what is nearly that.

    Read are other separators or none, numbers without their zero, a time without seconds or none, fractions, zones,
    24:00:00 (which begins the next day), clocks of twelve hours, C's `Fri Jul 30 18:05:09 2021`, and what a NUL ends.
    Years have four digits and come first: what could be read in two ways, or is not all understood, is not read.
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
        number = str(_MONTHS.index(month) + 1 if month in _MONTHS else 0)
        return _time(year, number, day, hour, minute, second, "")
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
    tags = getattr(image, "tag_v2", None) or {}
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or tags.get(_TIFF_XMP)
    text = xmp.encode("utf-8", errors="replace") if isinstance(xmp, str) else xmp
    if isinstance(text, bytes):
        for name in _XMP_TIMES:
            found = re.search(re.escape(name) + rb"""\s*(?:=\s*["']|>\s*)([^"'<]{1,60})""", text[:_LONGEST_XMP])
            yield found[1] if found else None


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
