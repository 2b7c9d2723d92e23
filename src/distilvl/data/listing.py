"""What the readers of image lists share: safe paths, clean captions, missing files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError, DistilvlError

_logger = logging.getLogger("distilvl")


def read_text(path: Path) -> str:
    """The UTF-8 text of a list (a byte order mark is dropped); `DistilvlError` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DistilvlError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from error


def image_in(root: Path, name: Any, where: str) -> FileImage:
    """The image `name` under `root`; lists may not point out of their folder.

    Raises:
        DistilvlError: `name` is not a string, is absolute or climbs with `..`; `where` says which entry it
            is.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DistilvlError(f"{where}: the image is {name!r}, not a file name.", "Give its path in the image folder.")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DistilvlError(
            f"{where}: the image path {name!r} leaves the image folder.",
            "Use paths relative to that folder, without '..'.",
        )
    return FileImage(root / name)


def clean_caption(caption: Any, where: str) -> str:
    """`caption` if it is a proper string; `DistilvlError` otherwise."""
    if not isinstance(caption, str):
        raise DistilvlError(f"{where}: the caption is {caption!r}, not a string.", "Write it in quotes.")
    try:
        caption.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DistilvlError(f"{where}: the caption {caption!r} is not valid Unicode.", "Replace it.") from error
    return caption


def split_of(image_id: str) -> str:
    """The split of an image in a list that names none: about 80 % train, 10 % val, 10 % test.

    It depends on the `image_id` only (its SHA-256), so adding images never moves another one to a different
    split.
    """
    share = int.from_bytes(hashlib.sha256(image_id.encode("utf-8")).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def dataset_of(name: str, records: Sequence[Record], *, skip_bad: bool) -> PairDataset:
    """The dataset of all `records`, after a look whether their files exist.

    Blank captions are dropped (an image with no other is an error). With `skip_bad` records without a file
    are left out, and their number is logged.

    Raises:
        BadImageError: files are missing; names the first one and their number.
        DistilvlError: no records, duplicate ids, or an image without captions.
    """
    missing = {
        index
        for index, record in enumerate(records)
        if isinstance(record.image, FileImage) and not record.image.path.is_file()
    }
    if missing and not skip_bad:
        raise BadImageError(
            f"image file {records[min(missing)].image.name} is missing "
            f"({len(missing)} of {len(records)} files of {name}).",
            "Restore the files, or pass --skip-bad to leave them out.",
        )
    if missing:
        _logger.warning(
            "%s: left out %d of %d images whose file is missing, first %s",
            name,
            len(missing),
            len(records),
            records[min(missing)].image.name,
        )
    kept = tuple(_without_blanks(record) for index, record in enumerate(records) if index not in missing)
    if not kept:
        raise DistilvlError(f"{name} has no images.", "Check the list and its image folder.")
    dataset = PairDataset(name, kept)
    _require_distinct_caption_ids(dataset)
    return dataset


def _without_blanks(record: Record) -> Record:
    kept = [k for k, caption in enumerate(record.captions) if caption.strip()]
    if len(kept) == len(record.captions):
        return record
    return replace(
        record,
        captions=tuple(record.captions[k] for k in kept),
        caption_ids=tuple(record.caption_ids[k] for k in kept),
    )


def _require_distinct_caption_ids(dataset: PairDataset) -> None:
    seen: set[str] = set()
    for record in dataset:
        for caption_id in record.caption_ids:
            if caption_id in seen:
                raise DistilvlError(
                    f"duplicate caption id {caption_id!r} in {dataset.name} (image {record.image_id!r}).",
                    "Give every caption an id of its own.",
                )
            seen.add(caption_id)
