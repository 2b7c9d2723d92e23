"""What readers of lists share: the checks of `dataset_of`, safe paths of images, clean captions, names of splits.

All readers take `skip_bad`: leave out and count (`Faults`) bad entries instead of raising; some `chosen`, columns or
keys by name, where `find_columns` would not find them, and `roots`, folders of the images instead of the list's own, to
the first of which paths are relative. All raise `DistilvlError` for a list that is none, or its first bad entry.
"""

import functools
import hashlib
import itertools
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from distilvl.data.left_out import MISSING, NO_CAPTION, BadItemError, Faults, LeftOut, MissingFileError
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError

NO_NAME = "no file name where the image should be"
OUTSIDE = "a path that leaves the image folder"
NO_TEXT = "a caption that is no text"
BLANK = "a blank caption, of an image that has others"
DUPLICATE = "an image_id that another image has"
DUPLICATE_CAPTION = "a caption id that another caption has"

# The control characters C0, DEL and C1, without tab, line feed, carriage return and NEL, which are white space.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
# All figures since VSE++ (Faghri et al., BMVC 2018) are of 113,287 images, COCO's `restval` among them.
_USUAL_SPLITS = {"restval": "train", "training": "train", "validation": "val", "valid": "val", "dev": "val"}
_MOST_SPELLINGS = 64


def dataset_of(name: str, records: Sequence[Record], faults: Faults) -> PairDataset:
    """The dataset of those `records` that can be used.

    Without a file, without a caption that is not blank, or with an id that another one has, a record cannot. `faults`
    holds what the reader found before; with `skip_bad` all of it is left out and logged. Blank captions of an image
    that has others are left out and counted. `BadImageError` for missing files; `DistilvlError` for no records, an
    image without captions, duplicate ids, or the first fault of the reader.
    """
    faults.check()
    seen, seen_captions, usable = set[str](), set[str](), []
    for record in records:
        if isinstance(record.image, FileImage) and not record.image.name.isascii():
            record = replace(record, image=FileImage(str(on_disk(record.image.path))))  # in the disk's spelling
        with faults:
            _check(record, name, seen, seen_captions)
            seen.add(record.image_id)
            seen_captions.update(record.given_ids)  # others are made of the images' ids, which are distinct
            usable.append(_without_blanks(record, faults.left_out))
    faults.check(len(records))
    faults.left_out.log(name)
    if not usable:
        problem = f"{name} has no images{in_brackets(faults.left_out)}."
        raise DistilvlError(problem, "Check the list and its image folder.")
    return PairDataset(name, tuple(usable), faults.left_out)


def _check(record: Record, name: str, seen: set[str], seen_captions: set[str]) -> None:
    image = record.image.name
    if isinstance(record.image, FileImage) and not os.path.isfile(image):  # noqa: PTH113 - a name may be too long
        raise missing(image)
    if not any(caption.strip() for caption in record.captions):
        raise BadItemError(f"image {record.image_id!r} in {name} has no captions", "Add one.", image, NO_CAPTION)
    if record.image_id in seen:
        remedy = "Give every image an id of its own, or merge its captions into one entry."
        raise BadItemError(f"duplicate image_id {record.image_id!r} in {name}", remedy, image, DUPLICATE)
    twice = next((one for one in record.given_ids if one in seen_captions), None)
    if twice is not None or len(set(record.given_ids)) < len(record.given_ids):
        problem = f"duplicate caption id {twice or record.given_ids[0]!r} in {name} (image {record.image_id!r})"
        raise BadItemError(problem, "Give every caption an id of its own.", image, DUPLICATE_CAPTION)


def _without_blanks(record: Record, left_out: LeftOut) -> Record:
    kept = [k for k, caption in enumerate(record.captions) if caption.strip()]
    if len(kept) == len(record.captions):
        return record
    for _ in range(len(record.captions) - len(kept)):
        left_out.add(BLANK, record.image.name)
    captions, ids = (tuple(values[k] for k in kept) for values in (record.captions, record.caption_ids))
    return replace(record, captions=captions, given_ids=ids)


def in_brackets(left_out: LeftOut) -> str:
    """What a message that nothing is there adds: `; left out: 2 (no caption): a.jpg, b.jpg`; empty if it is empty."""
    return f"; left out: {'; '.join(left_out.lines())}" if left_out else ""


def missing(image: str) -> BadItemError:
    """The fault of an image whose file is not there."""
    return MissingFileError(f"image file {image} is missing", "Restore the files.", image, MISSING)


def image_in(root: Path, name: Any, where: str, others: Sequence[Path] = ()) -> FileImage:
    """The image `name` under `root`; lists may not point out of their folder, except into `others`.

    A list of somebody else could make any picture of this machine part of a data set, and send it to a teacher behind
    an API. So a `name` that climbs with `..`, or is an absolute path elsewhere, is a `BadItemError`, as one that is
    no string of whole characters. Links inside a folder are followed.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or not is_unicode(name):
        problem = f"{where}: the image is {name!r}, not a file name"
        raise BadItemError(problem, "Give its path in the image folder.", where, NO_NAME)
    windows, path = PureWindowsPath(name), Path(name)
    climbs = ".." in windows.parts
    if not (name.startswith("/") or windows.drive or windows.root or climbs):
        return FileImage(str(root / name))
    if not climbs and any(path.is_relative_to(folder) for folder in _absolute((root, *others))):
        return FileImage(name)
    remedy = "Use paths relative to that folder, without '..'"
    if path.is_absolute() and not climbs:
        remedy += f", or name another folder behind the list: ?root={path.parent}"
    elif windows.drive:
        remedy += " or a drive of another machine"
    problem = f"{where}: the image path {name!r} leaves the image folder {root}"
    raise BadItemError(problem, f"{remedy}.", where, OUTSIDE)


@functools.lru_cache(maxsize=8)
def _absolute(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Each folder as it is called and as it is called when links are followed."""
    return tuple(dict.fromkeys(path for folder in folders for path in (folder.absolute(), folder.resolve())))


def path_in(root: Path, name: str) -> str:
    """What an image of `image_in` is called: its path as the list has it, or an absolute one from `root` on."""
    if not os.path.isabs(name):  # noqa: PTH117 - quick, there may be many
        return name
    path = Path(name)
    inside = next((folder for folder in _absolute((root,)) if path.is_relative_to(folder)), None)
    return name if inside is None else path.relative_to(inside).as_posix()


def spellings(path: str) -> list[str]:
    """All spellings of a path with `/` in which each name is as given, composed or taken apart; `path` first.

    Of one with very many names that have accents, only those in which all are written alike.
    """
    if path.isascii():
        return [path]
    names = [_forms(name) for name in path.split("/")]
    if math.prod(map(len, names)) > _MOST_SPELLINGS:
        return _forms(path)
    return list(dict.fromkeys("/".join(chosen) for chosen in itertools.product(*names)))


def _forms(name: str) -> list[str]:
    return list(dict.fromkeys([name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]))


def on_disk(path: Path) -> Path:
    """The path as the disk has it, if it is there in another spelling; else as it is."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    return next((Path(other) for other in spellings(path.as_posix())[1:] if os.path.lexists(other)), path)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written down: half a surrogate pair, as JSON may hold, has no bytes in any encoding."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def clean_captions(captions: Iterable[Any], where: str) -> tuple[str, ...]:
    """`clean_caption` of each, and nothing for null: as a blank one, it is no caption (`dataset_of`)."""
    return tuple("" if caption is None else clean_caption(caption, where) for caption in captions)


def clean_caption(caption: Any, where: str) -> str:
    """`caption` with spaces for control characters but tabs and line breaks; `BadItemError` for no valid text."""
    if not isinstance(caption, str):
        what, remedy = f"is {caption!r}, not a string", "Write it in quotes."
    elif not is_unicode(caption):
        what, remedy = f"{caption!r} is not valid Unicode", "Replace it."
    else:
        return _CONTROL.sub(" ", caption)
    raise BadItemError(f"{where}: the caption {what}", remedy, where, NO_TEXT)


def usual_split(name: str) -> str:
    """The name that is used here for the split `name`: `restval` is `train`, `validation` and `dev` are `val`."""
    return _USUAL_SPLITS.get(name, name)


def split_in_name(path: PurePath) -> str | None:
    """`val` for `captions_val2014.json` or `validation-00000-of-00002.parquet`: the one word for a split in a name."""
    words = {usual_split(word) for word in re.findall("[a-z]+", path.stem.lower())} & {"train", "val", "test"}
    return words.pop() if len(words) == 1 else None


def split_in_path(name: str, folder: str) -> str | None:
    """The split that a file's name has a word for, or else the name of its folder, as in `validation/0000.parquet`."""
    above = usual_split(folder.lower())
    return split_in_name(PurePosixPath(name)) or (above if above in ("train", "val", "test") else None)


def split_of(image_id: str) -> str:
    """The split of an image where a list names none, by its id's SHA-256: about 80 % train, 10 % val, 10 % test."""
    share = int.from_bytes(hashlib.sha256(image_id.encode("utf-8")).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def depth_in_common(folders: Iterable[Sequence[str]]) -> int:
    """How many parts, from the root on, these paths of folders share; names of files begin after them."""
    return len(list(itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))))
