"""The image files of a folder, by their endings."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from distilvl.data.images import IMAGE_SUFFIXES
from distilvl.data.left_out import LeftOut
from distilvl.data.listing import is_unicode
from distilvl.errors import DistilvlError

NO_UNICODE = "a name that is not valid Unicode"
SPECIAL = "no plain file (a pipe, a socket or a device)"
UNREADABLE_FOLDER = "a folder that may not be listed"
_UNREAD = {".heic", ".heif", ".jxl", ".cr2", ".nef", ".arw", ".dng"}
_ASIDE = {"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}


def image_files(
    folder: Path, *, include_hidden: bool = False, skip_bad: bool = False, left_out: LeftOut | None = None
) -> list[str]:
    """Paths of all images in `folder` and the folders in it, relative to it, with `/`, sorted.

    Hidden files and folders are passed over (macOS puts `._a.jpg` beside `a.jpg`), and those of a disk or a NAS. Links
    to folders are followed, each folder once, so that a link to a folder above it does no harm.

    Args:
        folder: where to look.
        include_hidden: take hidden ones too.
        skip_bad: count folders that may not be listed instead of raising.
        left_out: told of what is passed over.

    Raises:
        DistilvlError: no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    left_out = LeftOut() if left_out is None else left_out
    found: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return  # deleted a moment ago
        if Path(error.filename) == folder or not skip_bad:
            raise DistilvlError(
                f"the folder {error.filename} cannot be listed: {error.strerror or error}.",
                "Check the disk and the folder's permissions.",
            ) from error
        left_out.add(UNREADABLE_FOLDER, Path(error.filename).relative_to(folder).as_posix())

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        within = Path(place).relative_to(folder)
        hidden = [] if include_hidden else [name for name in folders if name.startswith(".") or name in _ASIDE]
        for name in sorted(hidden):
            left_out.add("a hidden folder", (within / name).as_posix())
        folders[:] = sorted(set(folders) - set(hidden))
        for name in sorted(files):
            path, suffix = (within / name).as_posix(), Path(name).suffix.lower()
            if suffix in _UNREAD:
                left_out.add(f"{suffix[1:].upper()}, which is not read", path)
            elif suffix in IMAGE_SUFFIXES and name.startswith(".") and not include_hidden:
                left_out.add("a hidden file", path)
            elif suffix in IMAGE_SUFFIXES and not is_unicode(path):
                left_out.add(NO_UNICODE, path)
            elif suffix in IMAGE_SUFFIXES:
                found.append(path)
    return sorted(found)
