"""Images and captions that do not belong together: enough for all that a teacher says of either alone."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distilvl.data.image_files import no_images, scan_folder
from distilvl.data.left_out import Faults, LeftOut
from distilvl.data.listing import clean_caption, missing
from distilvl.data.records import FileImage, ImageSource
from distilvl.data.tables import read_lines
from distilvl.errors import DistilvlError

_logger = logging.getLogger("distilvl")


@dataclass(frozen=True, slots=True)
class UnpairedImage:
    """One image without captions.

    Attributes:
        image_id: unique within a dataset.
        image: where the pixels come from.
    """

    image_id: str
    image: ImageSource


@dataclass(frozen=True)
class UnpairedDataset:
    """Images and texts with no link between them, nor splits.

    Args:
        name: how messages and reports call it.
        images: at least one, with ids of their own.
        texts: at least one, all different: a second copy of a text would be a negative of the first.

        left_out: what the reader passed over; see `LeftOut`.

    Raises:
        DistilvlError: nothing on one of the two sides, duplicate ids or texts.
    """

    name: str
    images: tuple[UnpairedImage, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    left_out: LeftOut = field(default_factory=LeftOut, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[UnpairedImage]:
        return iter(self.images)

    @property
    def captions(self) -> list[str]:
        """All texts; none of them is known to say anything about any of the images."""
        return list(self.texts)

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise DistilvlError(f"the texts of {self.name} are one text.", "Write (text,).")
        for what, items in (("images", [image.image_id for image in self.images]), ("texts", self.texts)):
            if not items:
                raise DistilvlError(f"{self.name} has no {what}.", "Both sides are needed.")
            if len(set(items)) < len(items):
                twice = Counter(items).most_common(1)[0][0]
                raise DistilvlError(f"{self.name} has twice among its {what}: {twice!r}.", "Keep one of them.")


def read_unpaired(images: str | Path, texts: str | Path, *, skip_bad: bool = False) -> UnpairedDataset:
    """The images of one folder and the lines of one text file.

    What `scan_folder` passes over is counted in `left_out`.

    Args:
        images: a folder, read with the folders in it; `image_id` is the path in it.
        texts: one caption a line. Blank lines are dropped, and so are repeated ones, with a note of how many.
        skip_bad: leave out and count links into nothing, folders that may not be listed and captions that are not valid
            text, instead of raising.

    Raises:
        BadImageError: a link into nothing, unless `skip_bad`.
        DistilvlError: a missing folder or file, one that holds nothing, or text that is not UTF-8.
    """
    folder, file = Path(images), Path(texts)
    found = scan_folder(folder, skip_bad=skip_bad)
    faults = Faults(f"{folder.resolve().name}+{file.stem}", skip_bad=skip_bad)
    faults.left_out.update(found.left_out)
    for name in found.dead:
        faults.add(missing(str(folder / name)))
    if not found.images and found.left_out:
        raise no_images(folder, found.left_out)
    lines = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            clean = functools.partial(clean_caption, line.removesuffix("\n"), f"{file}, line {number}")
            caption = faults.attempt(clean)
            lines += [] if caption is None else [caption]
    faults.check()
    faults.left_out.log(faults.source)
    distinct = tuple(dict.fromkeys(lines))
    if len(distinct) < len(lines):
        _logger.info("%s: left out %d of %d lines, which repeat others", file, len(lines) - len(distinct), len(lines))
    pictures = tuple(UnpairedImage(name, FileImage(str(folder / name))) for name in found.images)
    return UnpairedDataset(faults.source, pictures, distinct, faults.left_out)
