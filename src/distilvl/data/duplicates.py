"""Images that are the same, or nearly: perceptual hashes, and the groups of those that differ in few bits."""

import itertools
import os
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key
from distilvl.io.prefetch import prefetched
from distilvl.io.progress import progress
from distilvl.pictures import decode_image, full_size, read_header

THUMBNAIL = 8  # edge of the thumbnails, in pixels
MAX_DISTANCE = 15  # with more bits than this the bands get so short that nearly all hashes are compared
SAME_COLOURS = 24.0
"""Largest mean difference, of 255, between the thumbnails of near duplicates. Among the 24,496,500 pairs of 7,000
photographs of Flickr8k, the 21 that differ in at most 10 bits of their hash and show different things are all above."""

Rows = npt.NDArray[np.int64]
_BITS = 64
_EDGE, _LOW = 32, 8
_COMPARED = 16384  # thumbnails compared at once, some 10 MB
_READ_AT_ONCE = 256
_WORKERS = min(8, os.cpu_count() or 1)  # Pillow decodes outside Python's lock


@dataclass(frozen=True)
class Picture:
    """What is kept of an image, some 400 bytes: 100,000 of them take 40 MB."""

    key: bytes  # hash of the file's bytes
    size: tuple[int, int]  # width and height, upright
    format: str  # such as `JPEG`
    hash: int  # `perceptual_hash`
    thumbnail: npt.NDArray[np.uint8]  # (8, 8, 3)


def read_pictures(images: Sequence[ImageSource], name: str) -> list[Picture | BadImageError]:
    """Every image reduced, or why it cannot be decoded, in order; with a progress bar named after the dataset."""
    found: list[Picture | BadImageError] = []
    with progress(f"looking at {name}", len(images)) as ticker:
        for look in prefetched(_look, images, workers=_WORKERS, window=_READ_AT_ONCE):
            found.append(look)
            ticker.advance()
    return found


def _look(source: ImageSource) -> Picture | BadImageError:
    try:
        data = source.read()
        image = decode_image(data, source.name)
    except BadImageError as error:
        return error
    kind = read_header(data, source.name).format
    return Picture(image_key(data), full_size(image), kind, perceptual_hash(image), thumbnail(image))


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly the same when a picture is scaled, compressed again or made brighter (pHash).

    The grey picture at 32 x 32, its two-dimensional discrete cosine transform, the 8 x 8 lowest frequencies; a bit
    says whether a coefficient lies above their median (Zauner, Implementation and Benchmarking of Perceptual Image
    Hash Functions, 2010). Row by row, the first coefficient in the highest bit; equal to `imagehash.phash`.
    """
    grey = np.asarray(image.convert("L").resize((_EDGE, _EDGE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey, type=2)[:_LOW, :_LOW]
    return int.from_bytes(np.packbits((low > np.median(low)).ravel()).tobytes(), "big")


def thumbnail(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The picture at 8 x 8 pixels, (8, 8, 3): colours and flat areas, to which the hash is blind."""
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.uint8)


def near_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> Rows:
    """Pairs (i, j), i < j, of hashes that differ in at most `distance` bits; each once, sorted, shape (k, 2).

    Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): the bits are cut into distance + 1 bands. Two hashes
    within that distance agree in at least one band entirely, so only hashes with an equal band are compared. A distance
    below 0 or above 15 is a `ValueError`.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"distance is {distance}, not 0 to {MAX_DISTANCE}")
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int).tolist()
    found = [np.empty((0, 2), dtype=np.int64)]
    for low, high in itertools.pairwise(edges):
        for left, right in _agreeing(hashes, low, high):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
            if near.any():
                found.append(np.stack([left[near], right[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _agreeing(hashes: npt.NDArray[np.uint64], low: int, high: int) -> Iterator[tuple[Rows, Rows]]:
    """All pairs of rows that agree in bits `low` to `high`, some at a time, the smaller row first."""
    # In the order of the band's value, rows that agree stand together: each is paired with the one 1, 2, 3, ... places
    # after it, until no two at that distance agree.
    band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    order = np.argsort(band, kind="stable")
    band = band[order]
    first = np.arange(len(band) - 1)
    for step in range(1, len(band)):
        first = first[: np.searchsorted(first, len(band) - step)]
        first = first[band[first] == band[first + step]]
        if not len(first):
            return
        yield order[first], order[first + step]


def equal_groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Rows with equal keys, each group ascending, groups by their first row; only groups of two or more."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def near_groups(pictures: Sequence[Picture], distance: int) -> list[list[int]]:
    """Rows that show nearly the same picture though their files differ, ascending, groups by their first row.

    Two pictures are near when their hashes differ in at most `distance` bits, 0 to 15, and their thumbnails by at most
    `SAME_COLOURS`; a group is what such pairs connect. Identical files count once, by their first row.
    """
    hashes = np.asarray([picture.hash for picture in pictures], dtype=np.uint64)
    thumbnails = np.zeros((len(pictures), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    first: dict[bytes, int] = {}
    for row, picture in enumerate(pictures):
        thumbnails[row] = picture.thumbnail
        first.setdefault(picture.key, row)
    rows = np.asarray(list(first.values()), dtype=np.int64)
    # Pictures with the very same hash (blank pages, say) would be compared all with all below; leaders stand for them.
    leaders, links = _leaders(hashes, thumbnails, rows)
    pairs = leaders[near_pairs(hashes[leaders], distance)]
    pairs = pairs[_alike(thumbnails, pairs[:, 0], pairs[:, 1])]
    ends = np.asarray([*links, *pairs.tolist()], dtype=np.int64).reshape(-1, 2)
    shape = (len(pictures), len(pictures))
    graph = coo_array((np.ones(len(ends), dtype=bool), (ends[:, 0], ends[:, 1])), shape=shape)
    _, labels = connected_components(graph, directed=False)
    return equal_groups(labels.tolist())


def _leaders(
    hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8], rows: Rows
) -> tuple[Rows, list[tuple[int, int]]]:
    """One row for each hash and look, and which rows it stands for."""
    order = rows[np.argsort(hashes[rows], kind="stable")]
    leaders, links = list[int](), list[tuple[int, int]]()
    for left in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
        while len(left):
            leader = int(left[0])
            same = _alike(thumbnails, np.full(len(left), leader), left)
            leaders.append(leader)
            links += [(leader, int(row)) for row in left[same] if row != leader]
            left = left[~same]
    return np.asarray(sorted(leaders), dtype=np.int64), links


def _alike(thumbnails: npt.NDArray[np.uint8], left: Rows, right: Rows) -> npt.NDArray[np.bool_]:
    alike = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), _COMPARED):
        part = slice(start, start + _COMPARED)
        difference = np.abs(thumbnails[left[part]].astype(np.int16) - thumbnails[right[part]])
        alike[part] = difference.mean(axis=(1, 2, 3)) <= SAME_COLOURS
    return alike
