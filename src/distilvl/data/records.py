"""Datasets in memory: pairs of images and captions (`PairDataset`), and images and texts alone (`UnpairedDataset`)."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, overload

from distilvl.data.left_out import MISSING, NOT_READ, TOO_LARGE, LeftOut
from distilvl.errors import BadImageError, DistilvlError

PAIRS, CONTENT = "pairs", "content"
"""Ground truths: an image's own captions are right and no others; or equal captions and equal pictures are, too."""
ALL = "all"  # the name of all splits together


class ImageSource(Protocol):
    """Where the bytes of one image come from; `name` is what error messages call it."""

    @property
    def name(self) -> str:
        """A file name, or whatever tells a user which image is meant."""

    def read(self) -> bytes:
        """The encoded image (JPEG, PNG, PPM, ...); the hash of these bytes is the image's key everywhere."""


NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
LARGEST_FILE = 1 << 31  # bytes: more than the largest picture that is read takes, uncompressed and with 16 bits


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image file on disk."""

    name: str  # its path; as a `Path` it would take ten times the memory

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self.name)

    def read(self) -> bytes:
        """Bytes of the file; `BadImageError` when it is missing, unreadable, or larger than `LARGEST_FILE`."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                    remedy = "Make it smaller, or pass --skip-bad to leave it out."
                    raise BadImageError(f"{self.name} has more than {LARGEST_FILE:,} bytes.", remedy, reason=TOO_LARGE)
                return file.read()
        except OSError as error:
            reason = MISSING if error.errno in NOT_THERE else NOT_READ
            remedy = "Restore the file, or pass --skip-bad to leave it out."
            raise BadImageError(f"cannot read image {self.name}: {error.strerror}.", remedy, reason=reason) from error


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its captions, of which there is at least one."""

    image_id: str  # unique within a dataset
    image: ImageSource
    captions: tuple[str, ...]
    split: str  # `train`, `val` or `test` (or a name of the dataset's own)
    given_ids: tuple[str, ...] = ()  # one id a caption, or none at all; see `caption_ids`
    hard_negatives: tuple[str, ...] = ()  # captions that are wrong in one detail; optional, used by scoring only

    @property
    def caption_ids(self) -> tuple[str, ...]:
        """One id a caption, by which stored features can be imported: the given ones, or `image_id#k`."""
        return self.given_ids or tuple(f"{self.image_id}#{k}" for k in range(len(self.captions)))


@dataclass(frozen=True, repr=False)
class PairDataset(Sequence[Record]):
    """Images with their captions, in order; `DistilvlError` for duplicate ids, no captions, one text for several."""

    name: str  # what messages and reports call it
    records: tuple[Record, ...]
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)  # by the reader
    # What is right when it is scored and nobody says otherwise: `PAIRS` for benchmarks, whose published figures are
    # counted so; see `evaluation.ground_truth`.
    ground_truth: str = CONTENT

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            named = f"{record.image_id!r} in {self.name}"
            if record.image_id in seen:
                remedy = "Give every image an id of its own, or merge its captions into one entry."
                raise DistilvlError(f"duplicate image_id {named}.", remedy)
            seen.add(record.image_id)
            if isinstance(record.captions, str):
                raise DistilvlError(f"the captions of image {named} are one text.", "Write (caption,).")
            if not any(caption.strip() for caption in record.captions):
                remedy = "Add at least one caption, or remove the image from the list."
                raise DistilvlError(f"image {named} has no captions.", remedy)

    def __repr__(self) -> str:
        splits = ", ".join(f"{count} {split}" for split, count in self.splits.items())
        captions = sum(len(record.captions) for record in self.records)
        return f"PairDataset({self.name!r}: {len(self)} images ({splits}), {captions} captions)"

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def splits(self) -> dict[str, int]:
        """Number of images of each split, in order of appearance."""
        return dict(Counter(record.split for record in self.records))

    def split(self, name: str) -> PairDataset:
        """The records of one split, or of `all`, unless a split is called so; `DistilvlError` when it is empty."""
        chosen = tuple(record for record in self.records if record.split == name)
        chosen = chosen or (self.records if name == ALL else ())
        if not chosen:
            have = ", ".join(f"{split} ({count})" for split, count in self.splits.items()) or "nothing"
            raise DistilvlError(f"split {name!r} of {self.name} is empty.", f"Its splits are: {have}; or {ALL}.")
        return replace(self, name=f"{self.name}/{name}", records=chosen)

    def only(self, records: Sequence[Record]) -> PairDataset:
        """The same dataset with only these of its records."""
        return replace(self, records=tuple(records))

    @property
    def captions(self) -> list[str]:
        """All captions, image by image: length m."""
        return [caption for record in self.records for caption in record.captions]

    @property
    def caption_image(self) -> list[int]:
        """Row of each caption's image: length m, values in [0, n)."""
        return [row for row, record in enumerate(self.records) for _ in record.captions]


@dataclass(frozen=True, slots=True)
class UnpairedImage:
    """One image without captions; its `image_id` is unique within a dataset."""

    image_id: str
    image: ImageSource


@dataclass(frozen=True, repr=False)
class UnpairedDataset:
    """Images and texts, not linked, without splits; `DistilvlError` for an empty side, duplicate ids or texts."""

    name: str
    images: tuple[UnpairedImage, ...]
    texts: tuple[str, ...]
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise DistilvlError(f"the texts of {self.name} are one text.", "Write (text,).")
        for what, items in (("images", [image.image_id for image in self.images]), ("texts", self.texts)):
            if not items:
                raise DistilvlError(f"{self.name} has no {what}.", "Both sides are needed.")
            if len(set(items)) < len(items):
                twice = Counter(items).most_common(1)[0][0]
                raise DistilvlError(f"{self.name} has twice among its {what}: {twice!r}.", "Keep one of them.")

    def __repr__(self) -> str:
        return f"UnpairedDataset({self.name!r}: {len(self)} images, {len(self.texts)} texts)"

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[UnpairedImage]:
        return iter(self.images)

    @property
    def captions(self) -> list[str]:
        """All texts; none of them is known to say anything about any of the images."""
        return list(self.texts)
