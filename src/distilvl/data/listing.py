"""What the readers of image lists share: safe paths, clean captions, splits, missing files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from distilvl.data.left_out import MISSING, NO_CAPTION, LeftOut
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError, DistilvlError

# The control characters C0, DEL and C1, without tab, line feed, carriage return and NEL, which are white space.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_USUAL_SPLITS = {"restval": "train", "training": "train", "validation": "val", "valid": "val", "dev": "val"}


def image_in(root: Path, name: Any, where: str) -> FileImage:
    """The image `name` under `root`; lists may not point out of their folder.

    A list often comes from somebody else. With absolute paths or `..` it could make any picture of this
    machine part of a data set, and send it to a teacher behind an API. Links inside the folder are followed:
    whoever made them had access to the machine.

    Raises:
        DistilvlError: `name` is not a string of whole characters, is absolute or climbs with `..`; `where` says which
            entry it is.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name or not is_unicode(name):
        raise DistilvlError(f"{where}: the image is {name!r}, not a file name.", "Give its path in the image folder.")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DistilvlError(
            f"{where}: the image path {name!r} leaves the image folder.",
            "Use paths relative to that folder, without '..'.",
        )
    return FileImage(str(root / name))


def is_unicode(text: str) -> bool:
    """Whether `text` can be written down: half a surrogate pair, as JSON may hold, has no bytes in any encoding."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def clean_caption(caption: Any, where: str) -> str:
    """`caption` with each control character, except tabs and line breaks, replaced by a space.

    Control characters are damage (a NUL, a terminal's escape codes) that tokenizers treat in different ways;
    a space, not nothing, keeps the words on both sides apart. Nothing else is changed: white space, letter
    case and length stay, so that the caption's key stays that of the text as written.

    Raises:
        DistilvlError: not a string, or half a surrogate pair in it, which no encoding can store.
    """
    if not isinstance(caption, str):
        raise DistilvlError(f"{where}: the caption is {caption!r}, not a string.", "Write it in quotes.")
    if not is_unicode(caption):
        raise DistilvlError(f"{where}: the caption {caption!r} is not valid Unicode.", "Replace it.")
    return _CONTROL.sub(" ", caption)


def usual_split(name: str) -> str:
    """The name that is used here for the split `name`: `restval` is `train`, `validation` and `dev` are `val`.

    COCO's `restval` (30,504 images) has been trained on since VSE++ (Faghri et al., BMVC 2018), and all
    figures published since then are of the joint 113,287 images.
    """
    return _USUAL_SPLITS.get(name, name)


def split_in_name(path: Path) -> str | None:
    """`val` for `captions_val2014.json` or `validation-00000-of-00002.parquet`: the word for a split in a file's name.

    Nothing if there is no such word, or more than one.
    """
    words = {usual_split(word) for word in re.findall("[a-z]+", path.stem.lower())} & {"train", "val", "test"}
    return words.pop() if len(words) == 1 else None


def split_in_path(name: Path, folder: str) -> str | None:
    """The split that a file's name has a word for, or else the name of its folder, as in `validation/0000.parquet`."""
    above = usual_split(folder.lower())
    return split_in_name(name) or (above if above in ("train", "val", "test") else None)


def split_of(image_id: str) -> str:
    """The split of an image in a list that names none: about 80 % train, 10 % val, 10 % test.

    It depends on the `image_id` only (its SHA-256), so adding images never moves another one to a different
    split.
    """
    share = int.from_bytes(hashlib.sha256(image_id.encode("utf-8")).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def dataset_of(name: str, records: Sequence[Record], *, skip_bad: bool) -> PairDataset:
    """The dataset of all `records`, after a look whether their files exist.

    Blank captions are dropped (an image with no other is an error). With `skip_bad` records without a file or
    without captions are left out, their number is logged, and `left_out` of the dataset names them.

    Raises:
        BadImageError: files are missing; names the first one and their number.
        DistilvlError: no records, duplicate ids, or an image without captions.
    """
    missing = {
        index
        for index, record in enumerate(records)
        if isinstance(record.image, FileImage) and not _is_there(record.image)
    }
    if missing and not skip_bad:
        raise BadImageError(
            f"image file {records[min(missing)].image.name} is missing "
            f"({len(missing)} of {len(records)} files of {name}).",
            "Restore the files, or pass --skip-bad to leave them out.",
        )
    whole = [_without_blanks(record) for record in records]
    bare = {index for index, record in enumerate(whole) if not record.captions} - missing
    if bare and not skip_bad:
        raise DistilvlError(
            f"image {whole[min(bare)].image_id!r} in {name} has no captions ({len(bare)} of {len(whole)} images).",
            "Add at least one caption, or pass --skip-bad to leave it out.",
        )
    left_out = LeftOut()
    for reason, rows in ((MISSING, missing), (NO_CAPTION, bare)):
        for index in sorted(rows):
            left_out.add(reason, whole[index].image.name)
    left_out.log(name)
    kept = tuple(record for index, record in enumerate(whole) if index not in missing | bare)
    if not kept:
        raise DistilvlError(f"{name} has no images.", "Check the list and its image folder.")
    dataset = PairDataset(name, kept, left_out)
    _require_distinct_caption_ids(dataset)
    return dataset


def _is_there(image: FileImage) -> bool:
    try:
        return image.path.is_file()
    except OSError:  # a name too long for any file, or a folder that may not be entered
        return False


def _without_blanks(record: Record) -> Record:
    kept = [k for k, caption in enumerate(record.captions) if caption.strip()]
    if len(kept) == len(record.captions):
        return record
    return replace(
        record,
        captions=tuple(record.captions[k] for k in kept),
        given_ids=tuple(record.caption_ids[k] for k in kept),
    )


def _require_distinct_caption_ids(dataset: PairDataset) -> None:
    if not any(record.given_ids for record in dataset):
        return  # made of the images' ids, which are distinct
    seen: set[str] = set()
    for record in dataset:
        for caption_id in record.caption_ids:
            if caption_id in seen:
                raise DistilvlError(
                    f"duplicate caption id {caption_id!r} in {dataset.name} (image {record.image_id!r}).",
                    "Give every caption an id of its own.",
                )
            seen.add(caption_id)
