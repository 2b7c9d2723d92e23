"""Folders of images: which files in them count (`scan_folder`), captions in text files beside them, or none at all."""

import errno
import logging
import os
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from distilvl.data.columns import Row, merge_rows
from distilvl.data.left_out import NO_CAPTION, BadItemError, Faults, LeftOut
from distilvl.data.listing import clean_caption, dataset_of, is_unicode, missing, usual_split
from distilvl.data.phrases import phrases
from distilvl.data.records import FileImage, PairDataset, UnpairedDataset, UnpairedImage
from distilvl.data.tables import read_lines, read_text
from distilvl.errors import DistilvlError, NoCaptionsError
from distilvl.pictures.formats import image_suffixes, unread_pictures, unread_reason

HIDDEN = "hidden (its name begins with a dot)"
NOT_THE_USERS = "a folder that a NAS, a waste bin or the system keeps for itself"
SEEN = "a folder that was read under another path already"
NOWHERE = "a symbolic link that leads nowhere or in a circle"
SPECIAL = "no plain file (a pipe, a socket or a device)"
NO_UNICODE = "a name that is not valid Unicode"
UNREADABLE_FOLDER = "a folder that may not be listed"
TEXT_ALONE = "a text file without an image"
NO_SPLIT = "in no split's folder, where other images are in one"

# Of NAS, Windows, macOS and Linux; in lower case, as their disks do not tell letters apart.
_NOT_THE_USERS = frozenset(
    {"#recycle", "#snapshot", "$recycle.bin", ".@__thumb", ".recycle", ".snapshot", ".snapshots", ".thumbnails"}
    | {".trash", ".trashes", "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@snapshot", "@synoeastream"}
    | {"@tmp", "@transcode", "__macosx", "found.000", "lost+found", "network trash folder", "recycled", "recycler"}
    | {"system volume information", "~snapshot"}
)
_SPLITS = ("train", "val", "test")
_LISTS = (".csv", ".json", ".jsonl", ".tsv", ".txt")
_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class FolderScan:
    """What `scan_folder` found; paths are relative to the folder, with `/`, sorted."""

    images: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)  # links with the name of a picture that lead nowhere or in a circle
    texts: list[str] = field(default_factory=list)  # files that end in `.txt`
    left_out: LeftOut = field(default_factory=LeftOut)  # others that may be pictures, folders that were not entered
    stems: set[str] = field(default_factory=set)  # of the files that were left out, without the ending


def scan_folder(folder: Path, *, include_hidden: bool = False, skip_bad: bool = False) -> FolderScan:
    """The files in `folder` and the folders in it.

    Left out and counted are hidden pictures and folders, folders that a NAS, a waste bin or the system keeps for itself
    (both like any other with `include_hidden`), pictures of formats that are not read, endings that are not known,
    names that are not valid Unicode, pipes and devices, links that lead nowhere. Other links are followed, each folder
    once. `DistilvlError` for no such folder, one in it that may not be listed, unless `skip_bad`, a disk that fails.
    """
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    found, seen, waiting = FolderScan(), set[str](), [""]
    while waiting:
        within = waiting.pop()
        real = os.path.realpath(folder / within)
        if real in seen:
            found.left_out.add(SEEN, f"{within}/")
            continue
        seen.add(real)
        entries = _entries(folder / within, may_fail=skip_bad and within != "")
        if entries is None:
            found.left_out.add(UNREADABLE_FOLDER, f"{within}/")
            continue
        prefix = f"{within}/" if within else ""
        folders = [entry.name for entry in entries if _take(entry, prefix, found, include_hidden=include_hidden)]
        waiting += [prefix + name for name in reversed(folders)]
    for names in (found.images, found.dead, found.texts):
        names.sort()
    return found


def _entries(place: Path, *, may_fail: bool) -> list[os.DirEntry[str]] | None:
    """What lies in a folder, by name: nothing if it was just deleted, None if it may not be listed and `may_fail`."""
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        if isinstance(error, PermissionError) and may_fail:
            return None
        problem = f"the folder {error.filename} cannot be listed: {error.strerror or error}."
        raise DistilvlError(problem, "Check the disk and the folder's permissions.") from error


def _take(entry: os.DirEntry[str], prefix: str, found: FolderScan, *, include_hidden: bool) -> bool:
    """Put a file where it belongs; whether the entry is a folder to be entered."""
    name = entry.name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for every file is slow
    suffix, folder = suffix.lower(), False
    picture = suffix in image_suffixes()
    with suppress(OSError):  # a link in a circle, or into a folder that may not be entered
        folder = entry.is_dir()
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
        shown = os.fsencode(prefix + name).decode("utf-8", "backslashreplace")  # bytes that are no text as `\xe9`
        found.left_out.add(reason or NO_UNICODE, shown + "/" * folder)
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


def read_sidecars(folder: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of an image folder whose captions stand in text files beside the images, one caption a line.

    If every image lies in a folder `train`, `val` (`validation`, `dev`) or `test` at the top, these are the splits; an
    image outside of them is bad where there are two of them. Else the images are divided by a hash of their path
    (`split_of`). `DistilvlError` for no images, or none with a text file; unless `skip_bad`, for an image without a
    caption, a link into nothing, text or a folder that cannot be read. `left_out` counts text files without an image.
    """
    folder = Path(folder)
    found, faults = scan_folder(folder, skip_bad=skip_bad), Faults(folder.resolve().name, skip_bad=skip_bad)
    faults.left_out.update(found.left_out)
    images = sorted([*found.images, *found.dead])
    if not images:
        raise no_images(folder, found.left_out)
    texts = {os.path.splitext(text)[0]: text for text in found.texts}  # noqa: PTH122 - quick, there may be many
    # Accents may be composed in another way in the name of a text file.
    composed = {unicodedata.normalize("NFC", stem): stem for stem in texts if not stem.isascii()}
    stems = {name: os.path.splitext(name)[0] for name in images}  # noqa: PTH122
    for name, stem in stems.items():
        if stem not in texts and not stem.isascii():
            stems[name] = composed.get(unicodedata.normalize("NFC", stem), stem)
    if texts.keys().isdisjoint(stems.values()):
        lists = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _LISTS and path.is_file())
        problem = f"the folder {folder} holds {len(stems)} images and no captions; names of folders are not captions."
        remedy = "Write a captions.jsonl or captions.csv, put a .txt beside each image, or go without pairs: "
        listed = f" There is {lists[0]}: if it is the list, give its path." if lists else ""
        kind = DistilvlError if lists else NoCaptionsError
        raise kind(problem, f"{remedy}unpaired:DIR,FILE or unpaired:DIR.{listed}")
    for stem in sorted(texts.keys() - set(stems.values()) - found.stems):
        faults.left_out.add(TEXT_ALONE, texts[stem])
    for name in found.dead:
        faults.add(missing(str(folder / name)))
    captions: dict[str, list[str]] = {}
    for name in found.images:
        with faults:
            captions[name] = _captions(folder, name, texts.get(stems[name]))
    faults.check(len(images))
    tops = {name: usual_split(name.split("/")[0].lower()) if "/" in name else "" for name in captions}
    splits = {name: top if top in _SPLITS else None for name, top in tops.items()}
    # One folder that happens to be called `train` among others is a class, such as of railways.
    known = None not in splits.values() or len(set(splits.values()) - {None}) > 1
    rows = []
    for name, held in captions.items():
        place, split = str(folder / name), splits[name] if known else None
        if known and split is None:
            problem = f"{place} lies in none of the folders that are the splits"
            faults.add(BadItemError(problem, "Move it into one of them.", place, NO_SPLIT))
        else:
            rows.append(Row(place, name, FileImage(place), held, split))
    faults.check(len(images))
    return dataset_of(faults.source, merge_rows(rows, str(folder), faults), faults)


def _captions(folder: Path, name: str, text: str | None) -> list[str]:
    if text is None:
        place, remedy = str(folder / name), "Put a .txt of the same name beside each image."
        raise BadItemError(f"{place} has no text file", remedy, place, NO_CAPTION)
    try:
        return [line for line in read_text(folder / text).split("\n") if line.strip()]
    except DistilvlError as error:
        reason = "a text file that cannot be read"
        raise BadItemError(str(error).rstrip("."), "", str(folder / text), reason) from error


def read_unpaired(images: str | Path, texts: str | Path | None = None, *, skip_bad: bool = False) -> UnpairedDataset:
    """The images of one folder and the lines of one text file, or `data.phrases`, which do not belong together.

    `image_id` is the path. Blank lines of the texts are dropped, and so are repeated ones, with a note of how many.
    `DistilvlError` for a missing folder or file, one that holds nothing, text that is not UTF-8; unless `skip_bad`,
    for a link into nothing, a folder that may not be listed, a caption that is not valid text.
    """
    folder, file = Path(images), None if texts is None else Path(texts)
    found = scan_folder(folder, skip_bad=skip_bad)
    faults = Faults(f"{folder.resolve().name}+{file.stem if file else 'phrases'}", skip_bad=skip_bad)
    faults.left_out.update(found.left_out)
    for name in found.dead:
        faults.add(missing(str(folder / name)))
    if not found.images and found.left_out:
        raise no_images(folder, found.left_out)
    distinct = phrases() if file is None else _distinct_lines(file, faults)
    faults.check()
    faults.left_out.log(faults.source)
    pictures = tuple(UnpairedImage(name, FileImage(str(folder / name))) for name in found.images)
    return UnpairedDataset(faults.source, pictures, distinct, faults.left_out)


def _distinct_lines(file: Path, faults: Faults) -> tuple[str, ...]:
    lines = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            with faults:
                lines.append(clean_caption(line.removesuffix("\n"), f"{file}, line {number}"))
    distinct = tuple(dict.fromkeys(lines))
    if len(distinct) < len(lines):
        _logger.info("%s: left out %d of %d lines, which repeat others", file, len(lines) - len(distinct), len(lines))
    return distinct
