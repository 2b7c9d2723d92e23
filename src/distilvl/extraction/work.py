"""What there is to extract: a dataset's distinct items in blocks that any number of writers share; images, decoded."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from distilvl.data.crops import CroppedImage, Crops, Items, unique_captions, unique_images, with_crops
from distilvl.data.left_out import NOT_DECODED
from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import image_key
from distilvl.io.leases import Leases
from distilvl.io.progress import Ticker
from distilvl.pictures import decode_image

# Items a shard: what a kill can cost, against files in a folder.
SMALL_SHARD, LARGE_SHARD, MANY_ITEMS = 512, 4096, 1 << 20
# What one call of the teacher may hold: enough for any batch, few enough for a lively progress bar, and of
# large pictures no more than 0.75 GB of RGB. Calls never cross a shard, so a resumed run makes the same ones.
IMAGES_A_CALL, PIXELS_A_CALL = 128, 1 << 28
PAUSE_S = 0.5  # how often a writer that has nothing left to do looks whether the others are done
_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class Block:
    """Items that become one shard."""

    modality: Modality
    number: int  # position in the list of blocks, and the shard's number
    keys: tuple[bytes, ...]  # all items of it, stored or not

    def missing(self, store: FeatureStore) -> list[bytes]:
        """Its keys that `store` lacks, in order."""
        return [self.keys[i] for i in store.missing(self.modality, self.keys)]

    @property
    def lease_name(self) -> str:
        """The same for every writer that has the same items to do, and for no other block."""
        return f"{self.modality}-{self.number:05d}-{hashlib.sha256(b''.join(self.keys)).hexdigest()[:16]}"


def cut_blocks(modality: Modality, keys: Sequence[bytes], size: int | None = None) -> list[Block]:
    """All `keys` in blocks of `size`, numbered from 0; of 512, and of 4,096 of more than a million, if not given.

    Give the whole list, stored or not, in an order that all writers share: then writers that start at different times,
    or after a kill, cut the same blocks.
    """
    size = size or (SMALL_SHARD if len(keys) <= MANY_ITEMS else LARGE_SHARD)
    starts = range(0, len(keys), size)
    return [Block(modality, number, tuple(keys[start : start + size])) for number, start in enumerate(starts)]


@dataclass(frozen=True)
class Work:
    """The distinct items of a dataset, in the blocks that every engine cuts."""

    images: dict[bytes, list[ImageSource]]  # key -> all places the image is found in
    captions: dict[bytes, str]  # key -> caption
    image_blocks: list[Block]  # all of them, stored or not
    caption_blocks: list[Block]
    unreadable: dict[str, str]  # name -> reason of images that cannot be read

    @classmethod
    def of(cls, dataset: Items, *, skip_bad: bool, shard_size: int | None = None, crops: Crops | None = None) -> Work:
        """All of `dataset`, with `crops` of its images; reads every image once. Raises as `unique_images`."""
        images, unreadable = unique_images(dataset, skip_bad=skip_bad)
        if crops is not None:
            images = with_crops(images, crops)
        captions = unique_captions(dataset)
        image_blocks = cut_blocks("image", list(images), shard_size)
        return cls(images, captions, image_blocks, cut_blocks("text", list(captions), shard_size), unreadable)

    @property
    def blocks(self) -> list[Block]:
        """Those of images and then those of captions."""
        return self.image_blocks + self.caption_blocks

    def names_of(self, bad: Mapping[bytes, str]) -> dict[str, str]:
        """Name -> reason of all images that were left out: those with the keys of `bad`, and the unreadable ones."""
        return self.unreadable | {source.name: reason for key, reason in bad.items() for source in self.images[key]}


@contextmanager
def _leased(store: FeatureStore, block: Block, leases: Leases) -> Iterator[list[bytes] | None]:
    """What `store` lacks of `block`, which is ours until the end; None where another writer works on it."""
    lease = leases.take(block.lease_name)
    if lease is None:
        yield None
        return
    with lease:
        # Its last owner may have finished it just before we took it.
        store.refresh()
        yield block.missing(store)


@contextmanager
def one_block(store: FeatureStore, blocks: Sequence[Block]) -> Iterator[tuple[int, list[bytes]] | None]:
    """Number and missing keys of the first of `blocks` that `store` lacks and nobody works on, leased; perhaps None."""
    leases = Leases(store.path)
    for block in blocks:
        if block.missing(store):
            with _leased(store, block, leases) as missing:
                if missing:
                    yield block.number, missing
                    return
    yield None


def share_blocks(
    store: FeatureStore, blocks: Sequence[Block], work: Callable[[int, list[bytes]], None], ticker: Ticker
) -> None:
    """Call `work(number, missing keys)` for every block that is not stored, unless another writer does it.

    A block in other hands is waited for, and taken over when its writer dies. `store` is refreshed on the way. `work`
    stores what it is given and tells `ticker`, which is told here of what others did.
    """
    leases = Leases(store.path)
    todo = {block: count for block in blocks if (count := len(block.missing(store)))}
    waited = False
    while todo:
        busy: dict[Block, int] = {}
        for block, lacked in todo.items():
            with _leased(store, block, leases) as missing:
                if missing is None:
                    busy[block] = lacked
                    continue
                ticker.advance(lacked - len(missing))
                if missing:
                    work(block.number, missing)
        if len(busy) == len(todo):
            if not waited:
                _logger.info("waiting for %d blocks that other runs work on", len(busy))
                waited = True
            time.sleep(PAUSE_S)
        todo = busy


@dataclass
class ImageCall:
    """What a teacher encodes at once."""

    keys: list[bytes] = field(default_factory=list)  # of the images that could be decoded
    images: list[Image.Image] = field(default_factory=list)  # RGB
    names: list[str] = field(default_factory=list)  # what an error message calls each of them
    bad: dict[bytes, str] = field(default_factory=dict)  # keys of those that could not be decoded, with the reason


def image_calls(sources: Sequence[tuple[bytes, ImageSource]], *, skip_bad: bool) -> Iterator[ImageCall]:
    """Calls that hold all images of `sources`, in order.

    `BadImageError` for an image that cannot be read or decoded, unless `skip_bad`. `DistilvlError` for an image whose
    bytes are not those of its key any more.
    """
    call = ImageCall()
    for key, source in sources:
        try:
            image = _decoded(source, key)
        except BadImageError as error:
            if not skip_bad:
                raise
            call.bad[key] = error.reason or NOT_DECODED
            continue
        pixels = sum(one.width * one.height for one in (*call.images, image))
        if call.images and (len(call.images) == IMAGES_A_CALL or pixels > PIXELS_A_CALL):
            yield call
            call = ImageCall()
        call.keys.append(key)
        call.images.append(image)
        call.names.append(source.name)
    yield call


def _decoded(source: ImageSource, key: bytes) -> Image.Image:
    data = source.read()
    whole = source.image_key if isinstance(source, CroppedImage) else key
    if image_key(data) != whole:
        remedy = "Run the command again when it is at rest."
        raise DistilvlError(f"image {source.name} changed while it was being read.", remedy)
    image = decode_image(data, source.name)
    return source.crop.of(image) if isinstance(source, CroppedImage) else image
