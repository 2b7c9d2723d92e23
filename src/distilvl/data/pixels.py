"""Images decoded once: read, hashed, decoded and resized a single time; bad ones stop the run or are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import LeftOut
from distilvl.data.records import ImageSource, PairDataset, Record, UnpairedDataset, UnpairedImage
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key
from distilvl.io.prefetch import prefetched
from distilvl.io.progress import progress
from distilvl.pictures import decode_image

_BLOCK = 64
_WORKERS = 2  # Pillow decodes outside Python's lock

Pixels = npt.NDArray[np.uint8]
Resize = Callable[[Sequence[Image.Image]], Pixels]


@dataclass(frozen=True)
class PixelCache:
    """A dataset's images at the student's size; K crops of each, or the whole one (K = 1)."""

    dataset: Items  # the images that could be decoded, in order
    keys: list[bytes]  # content hash of each image, n of them
    pixels: Pixels  # (n * K, 3, H, W) uint8; row i * K + v is crop v of image i, crop 0 the whole one
    left_out: LeftOut  # images that could not be decoded; `dataset.left_out` is what its reader left out


class _HasImages(Protocol):
    """A dataset, paired or not, or files."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record | UnpairedImage]: ...


@dataclass
class Decoding:
    """All of a dataset's images, decoded; iterate over `blocks()`, then read what became of them.

    With `skip_bad`, undecodable images are left out and counted, instead of stopping.
    """

    dataset: _HasImages
    skip_bad: bool
    description: str  # what the progress line says
    at_least: int | None = None  # of large JPEGs, decode no more than this takes; see `decode_image`
    # The images that could be decoded, in order: `only_images` makes a dataset of their rows; their keys; the others.
    rows: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def blocks(self) -> Iterator[list[Image.Image]]:
        """The decodable images in order, at most 64 at a time, never none.

        `BadImageError` for the first undecodable image, unless `skip_bad`; and where all are.
        """
        sources = [entry.image for entry in self.dataset]
        read = enumerate(prefetched(self._read, sources, workers=_WORKERS, window=2 * _WORKERS))
        with progress(self.description, len(self.dataset)) as ticker:
            while block := list(islice(read, _BLOCK)):
                images: list[Image.Image] = []
                for row, one in block:
                    if not isinstance(one, BadImageError):
                        images.append(one[1])
                        self.rows.append(row)
                        self.keys.append(one[0])
                    elif self.skip_bad:
                        self.left_out.add_bad(one, sources[row].name)
                    else:
                        raise one
                if images:
                    yield images
                ticker.advance(len(block))
        if not self.rows:
            raise BadImageError(f"no image of {self.dataset.name} can be decoded.", "Check the image folder.")
        self.left_out.log(self.dataset.name)

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
def only_images(dataset: Items, rows: Sequence[int]) -> Items:
    """`dataset` with the images in these rows; of an unpaired one all texts stay."""
    if isinstance(dataset, UnpairedDataset):
        return replace(dataset, images=tuple(dataset.images[row] for row in rows))
    return dataset.only([dataset.records[row] for row in rows])


def decode_pixels(
    dataset: Items, resize: Resize, *, skip_bad: bool = False, crops: Crops | None = None, at_least: int | None = None
) -> PixelCache:
    """Read every image of `dataset` once, into memory. `skip_bad`, `at_least` and errors are those of `Decoding`.

    Args:
        resize: the student's own preprocessing, images to (n, 3, H, W) uint8.
        crops: cut these out of each image before its preprocessing, as before the teacher's.
    """
    decoding = Decoding(dataset, skip_bad, "decoding images", at_least)
    pixels, done = None, 0
    for block in pixel_blocks(decoding, resize, crops):
        if pixels is None:
            pixels = np.empty((len(dataset) * crops_of_each(crops), *block.shape[1:]), dtype=np.uint8)
        pixels[done : done + len(block)] = block
        done += len(block)
    assert pixels is not None  # `Decoding` raises where no image is left
    return PixelCache(only_images(dataset, decoding.rows), decoding.keys, pixels[:done], decoding.left_out)


def pixel_blocks(decoding: Decoding, resize: Resize, crops: Crops | None) -> Iterator[Pixels]:
    """What `decode_pixels` puts together, in order, at most 64 images at a time."""
    for images in decoding.blocks():
        if crops is None:
            yield resize(images)
        else:
            keys = decoding.keys[-len(images) :]
            yield resize([crop.of(image) for image, key in zip(images, keys, strict=True) for crop in crops.of(key)])


def crops_of_each(crops: Crops | None) -> int:
    """K, 1 where there are only whole images."""
    return 1 if crops is None else crops.count
