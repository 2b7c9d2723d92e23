"""Read a dataset's images once, in blocks: bytes, content key, decoded picture; bad ones stop or are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import overload

from PIL import Image

from distilvl.data.left_out import LeftOut
from distilvl.data.records import ImageSource, PairDataset
from distilvl.data.unpaired import UnpairedDataset
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key
from distilvl.pictures import decode_image
from distilvl.progress import progress

_BLOCK = 64
_WORKERS = 2  # Pillow decodes outside Python's lock


@dataclass
class Decoding:
    """One pass over a dataset's images; iterate over `blocks()`, then read what was kept.

    Args:
        dataset: what to read, paired or not.
        skip_bad: leave undecodable images out and count them in `left_out`, instead of stopping.
        description: what the progress line says.
        at_least: of large JPEGs, decode no more than this takes; see `decode_image`.

    Attributes:
        rows: of the images that could be decoded, in order; `only_images` makes a dataset of them.
        keys: theirs.
        left_out: the others, by reason.
    """

    dataset: PairDataset | UnpairedDataset
    skip_bad: bool
    description: str
    at_least: int | None = None
    rows: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def blocks(self) -> Iterator[list[Image.Image]]:
        """The decodable images in order, at most 64 at a time, never none.

        Raises:
            BadImageError: the first undecodable image, unless `skip_bad`; or all are.
        """
        left = enumerate([entry.image for entry in self.dataset])
        with ThreadPoolExecutor(_WORKERS) as pool, progress(self.description, len(self.dataset)) as ticker:
            while block := list(islice(left, _BLOCK)):
                found = pool.map(self._read, [source for _, source in block])
                images = [image for (row, source), one in zip(block, found, strict=True)
                          if (image := self._keep(row, source, one)) is not None]  # fmt: skip
                if images:
                    yield images
                ticker.advance(len(block))
        if not self.rows:
            raise BadImageError(f"no image of {self.dataset.name} can be decoded.", "Check the image folder.")
        self.left_out.log(self.dataset.name)

    def _keep(
        self, row: int, source: ImageSource, found: tuple[bytes, Image.Image] | BadImageError
    ) -> Image.Image | None:
        if isinstance(found, BadImageError):
            if not self.skip_bad:
                raise found
            self.left_out.add_bad(found, source.name)
            return None
        self.rows.append(row)
        self.keys.append(found[0])
        return found[1]

    def _read(self, source: ImageSource) -> tuple[bytes, Image.Image] | BadImageError:
        try:
            data = source.read()
            return image_key(data), decode_image(data, source.name, self.at_least)
        except BadImageError as error:
            return error


@overload
def only_images(dataset: PairDataset, rows: Sequence[int]) -> PairDataset: ...
@overload
def only_images(dataset: UnpairedDataset, rows: Sequence[int]) -> UnpairedDataset: ...
def only_images(dataset: PairDataset | UnpairedDataset, rows: Sequence[int]) -> PairDataset | UnpairedDataset:
    """`dataset` with the images in these rows; of an unpaired one all texts stay."""
    if isinstance(dataset, UnpairedDataset):
        images = tuple(dataset.images[row] for row in rows)
        return UnpairedDataset(dataset.name, images, dataset.texts, dataset.left_out)
    return dataset.only([dataset.records[row] for row in rows])
