"""Images decoded once: read, hashed, decoded and resized a single time, into memory or into a cache on disk.

The cache is shared by all processes that read it: `pixels-NAME.npy` holds the pixels, `pixels-NAME.json`, written last,
what they are; NAME is a hash of the bytes of the images, the preprocessing and the crops.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import NOT_DECODED, LeftOut
from distilvl.data.records import ImageSource, PairDataset, Record, UnpairedDataset, UnpairedImage
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.checksums import sealed, unsealed
from distilvl.io.files import make_folder, mapped_array, new_file, remove_partials, write_atomically
from distilvl.io.hashes import KEY_BYTES, file_hash, image_key
from distilvl.io.leases import only_writer
from distilvl.io.prefetch import prefetched
from distilvl.io.progress import progress
from distilvl.pictures import DECODING_VERSION, decode_image

FORMAT_VERSION = 1
_HASHERS, _WINDOW = 4, 64
_REMEDY = "Free space or fix the folder's permissions, or leave --pixel-cache away."
_ROOM = "Free space, name another disk's folder as --pixel-cache, or take fewer training.crops."
_LARGE = 1 << 30  # bytes
_logger = logging.getLogger("distilvl")
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
    """All of a dataset's images, decoded; iterate over `blocks()`, then read what became of them."""

    dataset: _HasImages
    skip_bad: bool  # leave undecodable images out and count them, instead of stopping
    description: str  # what the progress line says
    at_least: int | None = None  # of large JPEGs, decode no more than this takes; see `decode_image`
    # The images that could be decoded, in order: `only_images` makes a dataset of their rows; their keys; the others.
    rows: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def blocks(self) -> Iterator[list[Image.Image]]:
        """The images in order, at most 64 at a time; `BadImageError` for a bad one unless `skip_bad`, or all bad."""
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
                        self.left_out.add(one.reason or NOT_DECODED, sources[row].name)
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
    dataset: Items, resize: Resize, *, skip_bad: bool = False, crops: Crops | None = None, at_least: int | None = None,
    scratch: Path | None = None,
) -> PixelCache:  # fmt: skip
    """Read every image of `dataset` once, into memory. `skip_bad`, `at_least` and errors are those of `Decoding`.

    Args:
        resize: the student's own preprocessing, images to (n, 3, H, W) uint8; or what else is kept of each image.
        crops: cut these out of each image before its preprocessing, as before the teacher's.
        scratch: a folder; what is larger than a GiB is mapped from a file there, which goes with this process.
    """
    decoding = Decoding(dataset, skip_bad, "decoding images", at_least)
    pixels, done = None, 0
    for block in _estimated(pixel_blocks(decoding, resize, crops), scratch, decoding, crops):
        if pixels is None:
            shape = (len(dataset) * (crops.count if crops else 1), *block.shape[1:])
            is_large = scratch is not None and np.prod(shape) * block.itemsize > _LARGE
            where = scratch if is_large else None
            pixels = np.empty(shape, block.dtype) if where is None else mapped_array(shape, block.dtype, where, _ROOM)
        pixels[done : done + len(block)] = block
        done += len(block)
    assert pixels is not None  # `Decoding` raises where no image is left
    return PixelCache(only_images(dataset, decoding.rows), decoding.keys, pixels[:done], decoding.left_out)


def pixel_blocks(decoding: Decoding, resize: Resize, crops: Crops | None) -> Iterator[Pixels]:
    """What `decode_pixels` puts together, in order, at most 64 images at a time."""
    for images in decoding.blocks():
        if crops is not None:
            keys = decoding.keys[-len(images) :]
            images = [crop.of(image) for image, key in zip(images, keys, strict=True) for crop in crops.of(key)]
        yield resize(images)


def cached_pixels(
    dataset: Items, resize: Resize, preprocessing: str, folder: Path,
    *, skip_bad: bool = False, crops: Crops | None = None, at_least: int | None = None,
) -> PixelCache:  # fmt: skip
    """As `decode_pixels`, with pixels that lie in a file in `folder`; made there when it is not there yet.

    Every image is read and hashed each time, which tells whether it is the one that was decoded. Making the cache
    takes the memory of 64 images. Of several processes that need it one makes it, and the others wait.

    Args:
        preprocessing: what `resize` does, as text: equal texts, equal pixels.
        folder: of this and other caches; `DistilvlError` where it lacks room or cannot be written.
    """
    keys = _image_keys(dataset, skip_bad=skip_bad)
    drawn = None if crops is None else crops.as_dict()
    content = json.dumps([FORMAT_VERSION, DECODING_VERSION, preprocessing, at_least, drawn]).encode() + b"".join(keys)
    path = Path(folder) / f"pixels-{hashlib.sha256(content).hexdigest()[:16]}.npy"
    found = _open(path)
    if found is None:
        make_folder(path.parent, _REMEDY)
        with only_writer(path.parent):
            decoding = Decoding(dataset, skip_bad, "decoding images", at_least)
            # Another process may have made it while this one waited.
            found = _open(path) or _make(path, keys, decoding, resize, crops)
    pixels, bad = found
    sources, left_out = [entry.image for entry in dataset], LeftOut()
    if bad and not skip_bad:
        first = sources[min(bad)]
        decode_image(first.read(), first.name)
    rows = [row for row in range(len(sources)) if row not in bad]
    for row, reason in bad.items():
        left_out.add(reason, sources[row].name)
    return PixelCache(only_images(dataset, rows), [keys[row] for row in rows], pixels, left_out)


def _image_keys(dataset: Items, *, skip_bad: bool) -> list[bytes]:
    """Keys of all images in order; of those that cannot be read, zeros."""

    def key(source: ImageSource) -> bytes:
        try:
            return image_key(source.read())
        except BadImageError:
            if not skip_bad:
                raise
            return bytes(KEY_BYTES)

    keys: list[bytes] = []
    with progress("hashing images", len(dataset)) as ticker:
        for found in prefetched(key, [entry.image for entry in dataset], workers=_HASHERS, window=_WINDOW):
            keys.append(found)
            ticker.advance()
    return keys


def _open(path: Path) -> tuple[Pixels, dict[int, str]] | None:
    """The pixels, mapped, and positions of the bad images with what is wrong; nothing where there is no whole cache."""
    described = path.with_suffix(".json")
    if not described.is_file():
        return None
    try:
        about = unsealed(json.loads(described.read_text(encoding="utf-8")))
        reasons = about.get("reasons", {})  # caches that were made before reasons were kept have none
        bad = {int(row): str(reasons.get(str(row), NOT_DECODED)) for row in about["bad"]}
        if file_hash(path) != about["sha256"]:
            raise ValueError("its checksum differs")
        # Copy on write, since torch wants tensors of arrays that may be written to; nobody does.
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False)), bad
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _logger.warning("the pixel cache %s is damaged (%s) and is made again", path, error)
        return None


def _make(
    path: Path, keys: list[bytes], decoding: Decoding, resize: Resize, crops: Crops | None
) -> tuple[Pixels, dict[int, str]]:
    """Decode into `path` and describe it; see `_open`."""
    remove_partials(path.parent)
    blocks = _estimated(pixel_blocks(decoding, resize, crops), path.parent, decoding, crops, path, _REMEDY)
    with new_file(path, _REMEDY) as partial:
        with partial.open("w+b") as file:
            _write(file, blocks)
        if [keys[row] for row in decoding.rows] != decoding.keys:
            problem = f"images of {decoding.dataset.name} changed while they were being read."
            raise DistilvlError(problem, "Run the command again when they are at rest.")
        names = [entry.image.name for entry in decoding.dataset]
        bad = sorted(set(range(len(names))) - set(decoding.rows))
        known = dict(decoding.left_out.items())
        about = {
            "format_version": FORMAT_VERSION,
            "dataset": decoding.dataset.name,
            "images": len(decoding.rows),
            "views": None if crops is None else crops.as_dict(),
            "bad": bad,
            "reasons": {str(row): known.get(names[row], NOT_DECODED) for row in bad},
            "sha256": file_hash(partial),
        }
    write_atomically(path.with_suffix(".json"), (json.dumps(sealed(about), indent=2) + "\n").encode(), _REMEDY)
    found = _open(path)
    if found is None:
        raise DistilvlError(f"the pixel cache {path} cannot be read back.", "Look at the disk's health.")
    return found


def _estimated(
    blocks: Iterator[Pixels], folder: Path | None, decoding: Decoding, crops: Crops | None, path: Path | None = None,
    remedy: str = _ROOM,
) -> Iterator[Pixels]:  # fmt: skip
    """`blocks`, after a line on what is to come in `folder`, which the first one tells; an error if there is no room.

    Without the name `path` of a file nothing is said of what is not larger than a GiB.
    """
    started = time.monotonic()
    for number, block in enumerate(blocks):
        if number == 0:
            images, each = len(decoding.dataset), crops.count if crops else 1
            size = images * each * block[0].nbytes
            seconds = (time.monotonic() - started) * images / max(len(decoding.rows), 1)
            if folder is not None and (path is not None or size > _LARGE):
                _logger.info(
                    "%s: %d images x %d crops of %s, %.2f GB, about %.0f s",
                    f"pixel cache {path}" if path else f"stored in {folder} until the end", images, each,
                    " x ".join(map(str, block.shape[2:] or block.shape[1:])), size / 1e9, seconds,
                )  # fmt: skip
                free = shutil.disk_usage(folder).free
                if size > free:
                    need = f"needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free."
                    what = "the pixel cache" if path else "what is stored of the images"
                    raise DistilvlError(f"{what} in {folder} {need}", remedy)
        yield block


def _write(file: BinaryIO, blocks: Iterator[Pixels]) -> None:
    """One array of all `blocks`; how long it is is known at the end, and NumPy's header leaves room for that."""
    about: dict[str, Any] = {"fortran_order": False, "shape": ()}
    rows = header = 0
    for block in blocks:
        if not rows:
            about["descr"] = np.lib.format.dtype_to_descr(block.dtype)
            np.lib.format.write_array_header_1_0(file, {**about, "shape": (0, *block.shape[1:])})
            header = file.tell()
        file.write(np.ascontiguousarray(block).data)
        rows += len(block)
        about["shape"] = (rows, *block.shape[1:])
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, about)
    assert file.tell() == header
