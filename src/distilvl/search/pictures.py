"""What is read from one file: content hash, picture, thumbnail, time."""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

from distilvl.data.image_files import SPECIAL, image_files
from distilvl.data.left_out import MISSING, NOT_DECODED, NOT_READ, LeftOut
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image
from distilvl.search.exif import capture_time

THUMBNAIL_SIDE = 256
_THUMBNAIL_QUALITY = 80
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


@dataclass(frozen=True)
class PhotoFile:
    """A file as the disk lists it.

    Attributes:
        path: absolute, with `/`.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds since 1970.
        reason: why the disk does not tell of it; empty when it does.
    """

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

    Attributes:
        file: which.
        id: content hash, 32 hex digits; empty when the disk did not give the bytes.
        image: its pixels; none when the content was known already, so that it need not be decoded.
        thumbnail: JPEG; empty without `image`.
        taken: capture time, if the file has one.
        reason: why it cannot be decoded, in a sentence; empty when it can.
        kind: the same as a phrase, by which such files are counted.
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
    """All image files in `folder` and the folders in it, in the order of their paths.

    A file that the disk does not tell of has a `reason`, and no stamp that a good one has.

    Args:
        folder: where to look.
        include_hidden: in hidden folders too; see `image_files`.
        left_out: told of what is passed over, among it links to nothing, what is no file, and folders that may
            not be listed.

    Raises:
        DistilvlError: no such folder, or it cannot be listed.
    """
    left_out = LeftOut() if left_out is None else left_out
    found = []
    for name in image_files(folder, include_hidden=include_hidden, skip_bad=True, left_out=left_out):
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            if error.errno not in _NOT_THERE:
                found.append(PhotoFile(path.as_posix(), -1, 0, _unread(path.as_posix(), error)))
            else:
                left_out.add(MISSING, name)
            continue
        # Reading a pipe would never end.
        if not stat.S_ISREG(status.st_mode):
            left_out.add(SPECIAL, name)
            continue
        found.append(PhotoFile(path.as_posix(), status.st_size, status.st_mtime_ns))
    return found


def read_picture(file: PhotoFile, known: Container[str]) -> Picture:
    """Read a file; decode it unless its content hash is in `known`."""
    if file.reason:
        return Picture(file, "", reason=file.reason, kind=NOT_READ)
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        kind = MISSING if error.errno in _NOT_THERE else NOT_READ
        return Picture(file, "", reason=_unread(file.path, error), kind=kind)
    key = image_key(data).hex()
    if key in known:
        return Picture(file, key)
    try:
        image = decode_image(data, file.path)
    except BadImageError as error:
        # The advice is about an option of other commands; here such files are always left out.
        reason = str(error).removesuffix(BAD_IMAGE_REMEDY).strip()
        return Picture(file, key, reason=reason, kind=error.reason or NOT_DECODED)
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
