"""The pixel cache on disk: decoded once for all runs, mapped into memory, shared by all processes that read it.

`pixels-NAME.npy` holds the pixels, `pixels-NAME.json`, written last, what they are; NAME is a hash of the bytes of the
images, the preprocessing and the crops.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from distilvl.data.crops import Crops, Items
from distilvl.data.left_out import NOT_DECODED, LeftOut
from distilvl.data.pixels import Decoding, PixelCache, Pixels, Resize, crops_of_each, only_images, pixel_blocks
from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.files import make_folder, new_file, remove_partials, write_atomically
from distilvl.io.hashes import KEY_BYTES, file_hash, image_key
from distilvl.io.leases import only_writer
from distilvl.io.prefetch import prefetched
from distilvl.io.progress import progress
from distilvl.pictures import DECODING_VERSION, decode_image

FORMAT_VERSION = 1
_WORKERS, _WINDOW = 4, 64
_REMEDY = "Free space or fix the folder's permissions, or leave --pixel-cache away."
_logger = logging.getLogger("distilvl")


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
    drawn = None if crops is None else asdict(crops)
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
        for found in prefetched(key, [entry.image for entry in dataset], workers=_WORKERS, window=_WINDOW):
            keys.append(found)
            ticker.advance()
    return keys


def _open(path: Path) -> tuple[Pixels, dict[int, str]] | None:
    """The pixels, mapped, and positions of the bad images with what is wrong; nothing where there is no whole cache."""
    described = path.with_suffix(".json")
    if not described.is_file():
        return None
    try:
        about = json.loads(described.read_text(encoding="utf-8"))
        # Caches that were made before reasons were kept have none.
        reasons = about.get("reasons", {})
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
    blocks = _estimated(pixel_blocks(decoding, resize, crops), path, decoding, crops)
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
            "views": None if crops is None else asdict(crops),
            "bad": bad,
            "reasons": {str(row): known.get(names[row], NOT_DECODED) for row in bad},
            "sha256": file_hash(partial),
        }
    write_atomically(path.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode(), _REMEDY)
    found = _open(path)
    if found is None:
        raise DistilvlError(f"the pixel cache {path} cannot be read back.", "Look at the disk's health.")
    return found


def _estimated(blocks: Iterator[Pixels], path: Path, decoding: Decoding, crops: Crops | None) -> Iterator[Pixels]:
    """`blocks`, after a line on what is to come, which the first one tells; or an error when there is no room."""
    started = time.monotonic()
    for number, block in enumerate(blocks):
        if number == 0:
            images, each = len(decoding.dataset), crops_of_each(crops)
            size = images * each * block[0].nbytes
            seconds = (time.monotonic() - started) * images / max(len(decoding.rows), 1)
            _logger.info(
                "pixel cache %s: %d images x %d crops of %d x %d, %.2f GB, about %.0f s",
                path, images, each, *block.shape[2:], size / 1e9, seconds,
            )  # fmt: skip
            free = shutil.disk_usage(path.parent).free
            if size > free:
                need = f"needs {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free."
                remedy = "Choose another --pixel-cache folder, or leave it away."
                raise DistilvlError(f"the pixel cache in {path.parent} {need}", remedy)
        yield block


def _write(file: BinaryIO, blocks: Iterator[Pixels]) -> None:
    """One array of all `blocks`; how long it is is known at the end, and NumPy's header leaves room for that."""
    about: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": ()}
    rows = header = 0
    for block in blocks:
        if not rows:
            np.lib.format.write_array_header_1_0(file, {**about, "shape": (0, *block.shape[1:])})
            header = file.tell()
        file.write(np.ascontiguousarray(block).data)
        rows += len(block)
        about["shape"] = (rows, *block.shape[1:])
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, about)
    assert file.tell() == header
