"""The distinct items of a dataset that a teacher encodes: captions, images, and crops of them, perhaps mirrored."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from PIL import Image, ImageEnhance, ImageOps

from distilvl.data.left_out import NOT_READ
from distilvl.data.records import ImageSource, PairDataset, UnpairedDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.hashes import KEY_BYTES, image_key, text_key

Items: TypeAlias = PairDataset | UnpairedDataset  # what a teacher can encode: for it, pairs make no difference


def unique_images(dataset: Items, *, skip_bad: bool = False) -> tuple[dict[bytes, list[ImageSource]], dict[str, str]]:
    """Distinct images in order of first appearance, key -> sources with those bytes; every image is read once.

    And name -> reason of those that cannot be read, which are a `BadImageError` unless `skip_bad`.
    """
    sources: dict[bytes, list[ImageSource]] = {}
    unreadable: dict[str, str] = {}
    for entry in dataset:
        try:
            data = entry.image.read()
        except BadImageError as error:
            if not skip_bad:
                raise
            unreadable[entry.image.name] = error.reason or NOT_READ
        else:
            sources.setdefault(image_key(data), []).append(entry.image)
    return sources, unreadable


def unique_captions(dataset: Items) -> dict[bytes, str]:
    """Distinct captions, in order of first appearance: key -> caption."""
    return {text_key(caption): caption for caption in dataset.captions}


GRID = 1 << 16
"""Boxes lie on a grid of so many steps a side, so that a crop is a few integers and has one way to be written."""
SAME = 1 << 8  # a factor in 256ths that changes nothing
_ENHANCED = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)  # what `Crop.colours` are factors of


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of an image, upright as `decode_image` gives it, and what is done to it after it was cut out."""

    left: int  # edges in 65536ths of the image's width and height
    top: int
    right: int
    bottom: int
    flip: bool = False  # mirrored
    colours: tuple[int, int, int] = (SAME, SAME, SAME)  # brightness, contrast, saturation times this, in 256ths
    grey: bool = False

    def key(self, image_key: bytes) -> bytes:
        """Key of this crop of the image with `image_key`; the whole image's is the image's own."""
        if self == WHOLE:
            return image_key
        written = struct.pack(">4I?", self.left, self.top, self.right, self.bottom, self.flip)
        if (
            self.grey or self.colours != WHOLE.colours
        ):  # crops without have the keys that they had before there were any
            written += struct.pack(">3H?", *self.colours, self.grey)
        return hashlib.sha256(b"distilvl view\0" + image_key + written).digest()[:KEY_BYTES]

    def of(self, image: Image.Image) -> Image.Image:
        """The crop in the image's own resolution: edges at the nearest pixel, never empty."""
        if self == WHOLE:
            return image
        left, right = _pixels(self.left, self.right, image.width)
        top, bottom = _pixels(self.top, self.bottom, image.height)
        cut = image.crop((left, top, right, bottom))
        cut = ImageOps.mirror(cut) if self.flip else cut
        for enhance, factor in zip(_ENHANCED, self.colours, strict=True):
            cut = cut if factor == SAME else enhance(cut).enhance(factor / SAME)
        return ImageOps.grayscale(cut).convert(cut.mode) if self.grey else cut


WHOLE = Crop(0, 0, GRID, GRID)  # crop 0 of every image


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How crops are drawn; a store's manifest holds it as `views`. `DistilvlError` for a value out of its range."""

    count: int  # K >= 2, number of crops of an image, the whole image (crop 0) included
    seed: int = 0  # >= 0; another seed gives other boxes
    scale: tuple[float, float] = (0.5, 1.0)  # 0 < least <= largest <= 1, share of the image's area in a box
    ratio: float = 4 / 3  # >= 1; a box's width over its height differs from the image's by at most this factor
    flip: bool = False  # mirror each crop but the whole image with probability 1/2
    colour: float = 0.0  # 0 to 1; brightness, contrast and saturation are each multiplied by 1 - colour to 1 + colour
    grey: float = 0.0  # 0 to 1, share of the crops, the whole image excepted, that are made grey

    def __post_init__(self) -> None:
        smallest, largest = self.scale
        ranges = {
            f"{self.count} crops": self.count >= 2,
            f"the seed {self.seed}": 0 <= self.seed < 1 << 64,
            f"the scale {smallest:g},{largest:g}": 0 < smallest <= largest <= 1,
            f"the ratio {self.ratio:g}": 1 <= self.ratio < math.inf,
            f"the change of colours {self.colour:g}": 0 <= self.colour <= 1,
            f"the share {self.grey:g} of grey crops": 0 <= self.grey <= 1,
        }
        remedy = "Take 2 crops or more, a seed of 0 or more, and a scale of two shares in (0, 1], as 0.5,1.0; other "
        remedy += "shares are of 0 to 1."
        for name, good in ranges.items():
            if not good:
                raise DistilvlError(f"{name} of an image cannot be drawn.", remedy)

    def crop(self, image_key: bytes, number: int) -> Crop:
        """Crop `number` (0 <= number < K) of the image with `image_key`."""
        if number == 0:
            return WHOLE
        # Of a hash and not of a generator, since stores outlive the generators of a library's version. Only
        # operations that IEEE 754 rounds in one way on all machines follow: no logarithms, no powers.
        digest = hashlib.sha256(b"distilvl views\0" + struct.pack(">QI", self.seed, number) + image_key).digest()
        area, stretch, x, y, tall, flip = (part / 2**32 for part in struct.unpack(">6I", digest[:24]))
        smallest, largest = self.scale
        area = smallest + area * (largest - smallest)
        stretch = 1 + stretch * (min(self.ratio, 1 / area) - 1)
        long, short = math.sqrt(area * stretch), math.sqrt(area / stretch)
        width, height = (round(GRID * min(side, 1.0)) for side in ((short, long) if tall < 0.5 else (long, short)))
        left, top = round(x * (GRID - width)), round(y * (GRID - height))
        colours, grey = self._colours(image_key, number)
        return Crop(left, top, left + width, top + height, self.flip and flip < 0.5, colours, grey)

    def _colours(self, image_key: bytes, number: int) -> tuple[tuple[int, int, int], bool]:
        if not (self.colour or self.grey):
            return WHOLE.colours, False
        digest = hashlib.sha256(b"distilvl colours\0" + struct.pack(">QI", self.seed, number) + image_key).digest()
        *places, grey = (part / 2**32 for part in struct.unpack(">4I", digest[:16]))
        light, contrast, saturation = (round(SAME * (1 + self.colour * (2 * place - 1))) for place in places)
        return (light, contrast, saturation), grey < self.grey

    def of(self, image_key: bytes) -> list[Crop]:
        """All K crops, the whole image first."""
        return [self.crop(image_key, number) for number in range(self.count)]

    def keys(self, image_keys: Sequence[bytes]) -> list[bytes]:
        """Keys of the crops of each image, image by image: length n * K."""
        return [crop.key(key) for key in image_keys for crop in self.of(key)]

    def held(self, keys: Iterable[bytes]) -> int:
        """How many of the distinct `keys` are crops of others of them."""
        all_keys = set(keys)
        return len({key for whole in all_keys for key in self.keys([whole])[1:]} & all_keys)

    def joined(self, other: Crops, owner: str) -> Crops:
        """The larger of two that draw the same boxes; `DistilvlError` that names `owner` when they do not."""
        mine, others = asdict(self), asdict(other)
        for name in mine.keys() - {"count"}:
            if mine[name] != others[name]:
                problem = f"{owner} holds crops with {name} {mine[name]}, not {others[name]}."
                raise DistilvlError(problem, "Take the same crops, or choose another --out folder.")
        return self if self.count >= other.count else other

    def as_dict(self) -> dict[str, Any]:
        """What a manifest's JSON holds; crops that leave colours alone say nothing of them."""
        return {name: value for name, value in asdict(self).items() if value or name not in _COLOURS}

    @classmethod
    def from_dict(cls, values: Any) -> Crops:
        """Of `as_dict`; `ValueError` for anything else."""
        number = (int, float)
        kinds = {"count": int, "seed": int, "scale": list, "ratio": number, "flip": bool}
        if not isinstance(values, Mapping) or set(values) - _COLOURS != set(kinds):
            raise ValueError(f"'views' has not the entries {', '.join(kinds)}")
        for name, value in values.items():
            kind = kinds.get(name, number)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):  # type: ignore[arg-type]
                raise ValueError(f"{name!r} of its views is {value!r}")
        scale = values["scale"]
        if len(scale) != 2 or not all(type(share) in (int, float) for share in scale):
            raise ValueError(f"'scale' of its views is {scale!r}")
        shares = {name: float(values[name]) for name in ("ratio", *_COLOURS & set(values))}
        try:
            return cls(**{**values, **shares, "scale": (float(scale[0]), float(scale[1]))})
        except DistilvlError as error:
            raise ValueError(str(error)) from error


_COLOURS = {"colour", "grey"}


def parse_crops(count: int, seed: int, scale: str, flip: bool, colour: float = 0.0, grey: float = 0.0) -> Crops | None:
    """Crops as a command line asks for them (scale: `smallest,largest`), None for 1; `DistilvlError` for bad values."""
    if count == 1:
        return None
    try:
        smallest, largest = (float(part) for part in scale.split(","))
    except ValueError as error:
        raise DistilvlError(f"the scale {scale!r} of crops is not two numbers.", "Write it as 0.5,1.0.") from error
    return Crops(count=count, seed=seed, scale=(smallest, largest), flip=flip, colour=colour, grey=grey)


@dataclass(frozen=True, slots=True)
class CroppedImage:
    """An image of which a teacher is to see one crop."""

    image: ImageSource  # the whole one
    image_key: bytes  # its key
    crop: Crop

    @property
    def name(self) -> str:
        """The image's."""
        return self.image.name

    def read(self) -> bytes:
        """Bytes of the whole image."""
        return self.image.read()


def with_crops(images: dict[bytes, list[ImageSource]], crops: Crops) -> dict[bytes, list[ImageSource]]:
    """What a teacher is to encode: key -> sources, all whole images first, as without crops, then the other crops."""
    items = dict(images)
    for key, sources in images.items():
        for crop in crops.of(key)[1:]:
            items.setdefault(crop.key(key), [CroppedImage(source, key, crop) for source in sources])
    return items


def _pixels(low: int, high: int, size: int) -> tuple[int, int]:
    first, last = ((2 * edge * size + GRID) // (2 * GRID) for edge in (low, high))  # halves upwards
    first = min(first, size - 1)
    return first, max(last, first + 1)
