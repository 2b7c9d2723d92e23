"""The image files of a folder, by their endings, and what else lies there, counted by reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distilvl.data.left_out import LeftOut
from distilvl.data.listing import is_unicode
from distilvl.errors import DistilvlError
from distilvl.pictures.formats import image_suffixes, unread_pictures, unread_reason

HIDDEN = "hidden (its name begins with a dot)"
NOT_THE_USERS = "a folder that a NAS, a waste bin or the system keeps for itself"
SEEN = "a folder that was read under another path already"
NOWHERE = "a symbolic link that leads nowhere or in a circle"
SPECIAL = "no plain file (a pipe, a socket or a device)"
NO_UNICODE = "a name that is not valid Unicode"
UNREADABLE_FOLDER = "a folder that may not be listed"

# Thumbnails of Synology (@eaDir) and QNAP (.@__thumb, @Recycle...), snapshots, waste bins of NAS, Windows, macOS and
# Linux, what a check of the disk found, Windows' own; in lower case, as their disks do not tell letters apart.
_NOT_THE_USERS = frozenset(
    {"#recycle", "#snapshot", "$recycle.bin", ".@__thumb", ".recycle", ".snapshot", ".snapshots", ".thumbnails"}
    | {".trash", ".trashes", "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@snapshot", "@synoeastream"}
    | {"@tmp", "@transcode", "__macosx", "found.000", "lost+found", "network trash folder", "recycled", "recycler"}
    | {"system volume information", "~snapshot"}
)


@dataclass(frozen=True)
class FolderScan:
    """What `scan_folder` found; paths are relative to the folder, with `/`, sorted.

    Attributes:
        images: files that have the ending of a picture that is read.
        dead: links of such a name that lead nowhere or in a circle: images whose file is missing.
        texts: files that end in `.txt`.
        left_out: the others that somebody may take for pictures, and folders that were not entered.
        stems: of the files that were left out, their paths without the ending.
    """

    images: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    stems: set[str] = field(default_factory=set)


def image_files(
    folder: Path, *, include_hidden: bool = False, skip_bad: bool = False, left_out: LeftOut | None = None
) -> list[str]:
    """The images of `scan_folder`; what it leaves out, and links that lead nowhere, are added to `left_out`."""
    found = scan_folder(folder, include_hidden=include_hidden, skip_bad=skip_bad)
    if left_out is not None:
        left_out.update(found.left_out)
        for name in found.dead:
            left_out.add(NOWHERE, name)
    return found.images


def no_images(folder: Path, left_out: LeftOut, what: str = "no images") -> DistilvlError:
    """The error for a folder without an image that is read: says what was there instead."""
    instead = f", only what is not read: {'; '.join(left_out.lines())}" if left_out else ""
    return DistilvlError(f"the folder {folder} holds {what}{instead}.", "Check the path, or convert the pictures.")


def scan_folder(folder: Path, *, include_hidden: bool = False, skip_bad: bool = False) -> FolderScan:
    """The files in `folder` and the folders in it.

    Passed over and counted are hidden pictures and folders (macOS puts `._a.jpg` beside `a.jpg`), folders that a NAS, a
    waste bin or the system keeps for itself, pictures of formats that are not read, endings that are not known, names
    that are not valid Unicode, pipes and devices, links that lead nowhere. Other links are followed, each folder once,
    so that a link to a folder above it does no harm.

    Args:
        folder: where to look.
        include_hidden: read hidden files and folders, and those of a NAS or a waste bin, like any other.
        skip_bad: count folders that may not be listed instead of raising.

    Raises:
        DistilvlError: no such folder; one in it that may not be listed, unless `skip_bad`; a disk that fails.
    """
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    found, seen = FolderScan(), set[str]()
    waiting = [""]
    while waiting:
        within = waiting.pop()
        real = os.path.realpath(folder / within)
        if real in seen:
            found.left_out.add(SEEN, f"{within}/")
            continue
        seen.add(real)
        try:
            entries = sorted(_entries(folder / within), key=lambda entry: entry.name)
        except PermissionError as error:
            if not skip_bad or not within:
                raise _unlisted(error) from error
            found.left_out.add(UNREADABLE_FOLDER, f"{within}/")
            continue
        prefix = f"{within}/" if within else ""
        folders = [entry.name for entry in entries if _take(entry, prefix, found, include_hidden=include_hidden)]
        waiting += [prefix + name for name in reversed(folders)]
    for names in (found.images, found.dead, found.texts):
        names.sort()
    return found


def _entries(place: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder; nothing if it was just deleted. One that cannot be listed must not pass for empty."""
    try:
        with os.scandir(place) as entries:
            yield from entries
    except PermissionError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise _unlisted(error) from error


def _unlisted(error: OSError) -> DistilvlError:
    return DistilvlError(
        f"the folder {error.filename} cannot be listed: {error.strerror or error}.",
        "Check the disk and the folder's permissions.",
    )


def _take(entry: os.DirEntry[str], prefix: str, found: FolderScan, *, include_hidden: bool) -> bool:
    """Put a file where it belongs; whether the entry is a folder to be entered."""
    name = entry.name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for every file is slow
    suffix = suffix.lower()
    folder, picture = _is_folder(entry), suffix in image_suffixes()
    if folder:
        reason = "" if include_hidden else kept_out(name)
    elif name.startswith(".") and not include_hidden:
        if not picture and suffix not in unread_pictures():
            return False
        reason = HIDDEN
    elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
        reason = NOWHERE
    elif picture or suffix == ".txt":
        reason = "" if entry.is_file() else SPECIAL
    else:
        reason = unread_reason(suffix)
    if reason == NOWHERE and picture and is_unicode(name):
        found.dead.append(prefix + name)
    elif reason or not is_unicode(name):
        found.left_out.add(reason or NO_UNICODE, _shown(prefix + name) + "/" * folder)
        found.stems.add(prefix + stem)
    elif not folder and (picture or suffix == ".txt"):
        (found.images if picture else found.texts).append(prefix + name)
    return folder and not reason and is_unicode(name)


def kept_out(name: str) -> str:
    """Why a folder of this name is not entered, unless asked for; empty for others."""
    low = name.lower()
    if low in _NOT_THE_USERS or low.startswith(".trash-"):
        return NOT_THE_USERS
    return HIDDEN if name.startswith(".") else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that may not be entered
        return False


def _shown(name: str) -> str:
    """A name that can be printed: bytes that are no text as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
