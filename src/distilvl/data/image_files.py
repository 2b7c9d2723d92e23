"""The image files of a folder, by their endings."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from distilvl.data.images import IMAGE_SUFFIXES
from distilvl.data.listing import is_unicode
from distilvl.errors import DistilvlError


def image_files(folder: Path) -> list[str]:
    """Paths of all images in `folder` and the folders in it, relative to it, with `/`, sorted.

    Hidden files and folders are passed over (macOS puts `._a.jpg` beside `a.jpg`), and a disk's `lost+found`. Links to
    folders are followed, each folder once, so that a link to a folder above it does no harm.

    Raises:
        DistilvlError: no such folder, one in it that cannot be listed, or a file name that is not valid Unicode.
    """
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "lost+found")
        within = Path(place).relative_to(folder)
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found.append(_checked((within / name).as_posix(), folder))
    return sorted(found)


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed must not pass for an empty one; one that was just deleted is empty."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        raise DistilvlError(
            f"the folder {error.filename} cannot be listed: {error.strerror or error}.",
            "Check the disk and the folder's permissions.",
        ) from error


def _checked(name: str, folder: Path) -> str:
    if not is_unicode(name):
        raise DistilvlError(f"the file name {name!r} in {folder} is not valid Unicode.", "Rename it.")
    return name
