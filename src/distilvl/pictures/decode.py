"""Encoded bytes (`decode_image`) or a PIL image (`upright_rgb`) to the RGB picture that all else works with."""

import functools
import io
import math
import re
import struct
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from distilvl.errors import BadImageError, TooManyPixelsError, one_line
from distilvl.pictures import containers
from distilvl.pictures.colour import UnknownRangeError, as_meant, require_whole_samples, to_rgb, widen_transparency
from distilvl.pictures.formats import image_suffixes
from distilvl.pictures.limits import LONGEST, MAX_PIXELS_VARIABLE, max_pixels, pillows_limit_lifted

DECODING_VERSION = 3  # another one when the same bytes may give another picture, or one where there was none

BAD_IMAGE_REMEDY = "Replace the file, or pass --skip-bad to leave it out."

# What the format plugins raise for damaged bytes: OSError mostly, AVIF's RuntimeError, damaged EXIF the last two.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, RuntimeError, struct.error,
            TypeError, AttributeError)  # fmt: skip

# What undoes each of EXIF's orientations; with those from 5 on width and height change places.
_Turn = Image.Transpose
_ON_THEIR_SIDE = {5: _Turn.TRANSPOSE, 6: _Turn.ROTATE_270, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90}
_UPRIGHT = {2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, **_ON_THEIR_SIDE}

# Pillow reads many more, one of them (EPS) by starting another program. HEIF and JXL are there if their plugins are.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_JPEGS = ("JPEG", "MPO")
# A JPEG with more pixels is decoded smaller, with no more than these: still far beyond what any tower takes.
_WHOLE = 50_000_000
_REDUCED = 16_000_000
_MOST_MISSING = 0.05  # a picture that lacks no more than its last rows is shown by viewers, and read
_FULL_SIZE = "distilvl_full_size"


@dataclass(frozen=True)
class Header:
    """What a picture's header says: its format, such as `JPEG`, and its sides as stored, not turned upright."""

    format: str
    width: int
    height: int


def decode_image(data: bytes, name: str, at_least: int | None = None, *, most: int | None = None) -> Image.Image:
    """The RGB picture in `data`, upright (EXIF orientation applied) and fully decoded, 8 bits a channel, in sRGB.

    Of 16 bits the upper 8 are kept, of an animation the first frame; a colour profile is applied (relative
    colorimetric); transparent parts are laid on white. A JPEG or PNG that lacks no more than 5 % of its pixels, at its
    end, is read. A JPEG of more than 50 million pixels is decoded at 1/2, 1/4 or 1/8 of its size, so that 16 million at
    most are left; `full_size` says what it had.

    Args:
        data: an encoded image: AVIF, BMP, GIF, JPEG, JPEG 2000, MPO, PNG, PPM, TIFF or WebP.
        name: what an error message calls it.
        at_least: pixels; for speed, a JPEG is decoded at 1/8, 1/4 or 1/2 of its size where both sides stay at least so
            long. Resized to half of `at_least`, photographs differ by 0.3 to 0.7 of 255 on average.
        most: pixels that it may have by its header, instead of `max_pixels()`, or else a `TooManyPixelsError`.

    Raises:
        BadImageError: empty, truncated, not an image, of unknown range (32 bits a channel), a TIFF of uncompressed
            planes of 16 bits, a strip with one side more than 100 times the other, or a JPEG of more than 100
            scans, of a large one fewer.
    """
    if not data:
        raise BadImageError(f"{name} is empty (0 bytes).", BAD_IMAGE_REMEDY)
    try:
        data, profile = containers.without_texts(data)
        image = _open_within(data, name, max_pixels() if most is None else most)
        whole = image.size
        if (most_scans := containers.most_scans(data, whole[0] * whole[1])) is not None:
            what = f"{name} has more than {most_scans} scans, each of which goes over all of its pixels."
            raise BadImageError(what, BAD_IMAGE_REMEDY)
        require_whole_samples(image)
        image = _loaded(image, data, at_least)
        turn = _turn(image)
        found = _finished(image, turn, profile or image.info.get("icc_profile"))
        if image.format in _JPEGS and image.size != whole:
            found.info[_FULL_SIZE] = whole[::-1] if turn in _ON_THEIR_SIDE.values() else whole
        return found
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name} is not an image of a kind that is read.", BAD_IMAGE_REMEDY) from error
    except UnknownRangeError as error:
        raise BadImageError(f"{name} holds {error}.", BAD_IMAGE_REMEDY) from error
    except _DAMAGED as error:
        raise BadImageError(f"cannot decode image {name}: {one_line(error)}.", BAD_IMAGE_REMEDY) from error


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """A PIL image of any mode as `decode_image` would give it (itself if it is so already), or a `BadImageError`."""
    try:
        profile = image.info.get("icc_profile")
        require_whole_samples(image)
        widen_transparency(image)  # before `_turn`, which loads a PNG: its EXIF may come after its pixels
        turn = _turn(image)
        if image.mode == "RGB" and profile is None and turn is None and "transparency" not in image.info:
            return image
        image.load()
        return _finished(image, turn, profile)
    except UnknownRangeError as error:
        raise BadImageError(f"{name} holds {error}.", "Convert it to 8 bits a channel first.") from error
    except _DAMAGED as error:
        raise BadImageError(f"cannot decode {name}: {one_line(error)}.", "Replace it.") from error


def read_header(data: bytes, name: str) -> Header:
    """Format and size, without decoding pixels and without our limits; `BadImageError` for what is not read."""
    try:
        image = open_image(data)
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"{name} has too many pixels.", BAD_IMAGE_REMEDY) from error
    except _DAMAGED as error:
        raise BadImageError(f"{name} is not an image of a kind that is read.", BAD_IMAGE_REMEDY) from error
    return Header(str(image.format), image.width, image.height)


def open_image(data: bytes) -> ImageFile.ImageFile:
    """The encoded image, opened for its metadata; raises whatever the plugin of its format does."""
    return _open(containers.without_texts(data)[0])


def full_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the picture in the file, upright; those of `image`, unless it was decoded smaller."""
    width, height = image.info.get(_FULL_SIZE, image.size)
    return width, height


@functools.cache
def supported_formats() -> tuple[str, ...]:
    """Those of the formats that this Pillow has."""
    Image.init()
    image_suffixes()  # makes the plugins known to Pillow
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open_within(data: bytes, name: str, most: int) -> ImageFile.ImageFile:
    """The picture, opened and not yet decoded, if its header is within the limits."""
    try:
        image = _open(data)
    except Image.DecompressionBombError as error:
        # A few plugins look at Pillow's limit, at twice of which they stop, themselves.
        found = re.search(r"\((\d+) pixels\)", str(error))
        _require_within(int(found[1]) if found else None, name, most)
        with pillows_limit_lifted():
            image = _open(data)
    _require_within(image.width * image.height, name, most)
    if max(image.size) > LONGEST * min(image.size):
        strip = f"a strip of {image.width:,} x {image.height:,} pixels; sides may be {LONGEST} to 1 at most."
        raise BadImageError(f"{name} is {strip}", BAD_IMAGE_REMEDY)
    return image


def _open(data: bytes) -> ImageFile.ImageFile:
    """What `Image.open` does, for our formats, without its warnings and its own limit of pixels."""
    prefix = data[:16]
    for name in supported_formats():
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if accepted and not isinstance(accepted, str):  # a text says why this Pillow does not read it after all
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                return factory(io.BytesIO(data), "")
    raise UnidentifiedImageError


def _loaded(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> ImageFile.ImageFile:
    """`image` with its pixels, or the picture without its missing end; `OSError` where more than that is missing."""
    wrong = OSError("image file is truncated")
    try:
        loaded = _load(image, at_least)
        # Data that ends early and is closed properly is no error to the decoders: they leave the rest as it is.
        kind = image.format
        if not _ends_blank(loaded) or not (kind in _JPEGS or (kind == "PNG" and containers.ends_early(data))):
            return loaded
    except OSError as error:
        wrong = error
    if (found := _of_what_is_there(image, data, at_least)) is None:
        raise wrong
    return found


def _of_what_is_there(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> ImageFile.ImageFile | None:
    """The picture without its missing end; None where more than a little is missing, or something else is wrong."""
    if image.format == "PNG" and (filled := containers.completed(data, _MOST_MISSING)) is not None:
        return _load(_open(filled), at_least)
    if image.format not in _JPEGS or (ends := containers.with_other_ends(data)) is None:
        return None
    one, other = (_load(_open(end), at_least) for end in ends)
    rows = one.height / _open(ends[0]).height
    block = max(1, round(8 * rows * max(layer[2] for layer in one.layer)))  # type: ignore[attr-defined]
    return one if containers.missing_share(one, other, block) <= _MOST_MISSING else None


def _ends_blank(image: Image.Image) -> bool:
    """Whether one of the last two rows is what decoders leave where nothing is: black, of a JPEG grey."""
    blank = (127, 128) if image.format in _JPEGS else (0,)
    for row in range(max(0, image.height - 2), image.height):
        first = image.getpixel((0, row))  # most pictures are told by it
        if (first[0] if isinstance(first, tuple) else first) not in blank:
            continue
        values = np.asarray(image.crop((0, row, image.width, row + 1)))
        if values.min() == values.max() and values.min() in blank:
            return True
    return False


def _load(image: ImageFile.ImageFile, at_least: int | None) -> ImageFile.ImageFile:
    widen_transparency(image)
    divisor = _divisor(image.size, at_least)
    if divisor > 1:
        image.draft(None, (max(1, image.width // divisor), max(1, image.height // divisor)))
    limit = Image.MAX_IMAGE_PIXELS
    with nullcontext() if limit is None or image.width * image.height <= limit else pillows_limit_lifted():
        image.load()
    return image


def _divisor(size: tuple[int, int], at_least: int | None) -> int:
    """By how much a JPEG's sides are divided: 1, 2, 4 or 8."""
    pixels = size[0] * size[1]
    wanted = max(1, min(size) // at_least if at_least else 1)
    if pixels > _WHOLE:
        wanted = max(wanted, math.ceil(math.sqrt(pixels / _REDUCED)))
        return next((divisor for divisor in (1, 2, 4, 8) if divisor >= wanted), 8)
    return next(divisor for divisor in (8, 4, 2, 1) if divisor <= wanted)


def _require_within(pixels: int | None, name: str, most: int) -> None:
    if pixels is None or pixels > most:
        count = "too many" if pixels is None else f"{pixels:,}"
        remedy = f"allow more (--max-pixels, {MAX_PIXELS_VARIABLE}), or pass --skip-bad to leave it out."
        problem = f"{name} has {count} pixels; at most {most:,} are decoded."
        raise TooManyPixelsError(problem, f"Make it smaller, {remedy}")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture stand as its EXIF orientation wants it; nothing where its EXIF is damaged."""
    # `ImageOps.exif_transpose` also writes the EXIF anew, and fails where any other field of it is damaged.
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGED:
        return None


def _finished(image: Image.Image, turn: Image.Transpose | None, profile: bytes | None) -> Image.Image:
    """Upright RGB without anything that would be applied once more: no profile, no orientation."""
    meant = as_meant(image)
    found = to_rgb(meant if turn is None else meant.transpose(turn), profile)
    found.info = {}
    return found
