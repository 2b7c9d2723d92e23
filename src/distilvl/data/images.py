"""Encoded bytes to pixels."""

from __future__ import annotations

import functools
import io
import re
import struct

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from distilvl.data.formats import image_suffixes
from distilvl.errors import BadImageError

BAD_IMAGE_REMEDY = "Replace the file, or pass --skip-bad to leave it out."

# Such a strip would be enlarged, before it is cropped, to thousands of times the pixels that a tower takes.
_LONGEST = 100

# What the format plugins raise for damaged bytes; OSError is the usual one ("image file is truncated"), AVIF's raises
# RuntimeError, damaged EXIF the last two.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    TypeError,
    AttributeError,
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each of EXIF's orientations."""

# Pillow reads many more, one of them (EPS) by starting another program. What photographs come in is enough.
# HEIF and JXL are there if their plugins are (`formats.py`).
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PPM", "TIFF", "WEBP")


def decode_image(data: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """The RGB picture in `data`, upright (EXIF orientation applied) and fully decoded, 8 bits a channel.

    CMYK and grey become RGB; 16-bit grey keeps its upper 8 bits; transparent parts are laid on white; of an
    animation the first frame is taken. Colour profiles are not applied, as no preprocessing of the teachers
    applies them either.

    Args:
        data: an encoded image: AVIF, BMP, GIF, JPEG, JPEG 2000, MPO, PNG, PPM, TIFF or WebP.
        name: what an error message calls it.
        at_least: pixels; a JPEG is decoded at 1/8, 1/4 or 1/2 of its size where both sides stay at least so long,
            which is faster. Resized to half of `at_least`, photographs differ by 0.3 to 0.7 of 255 on average.

    Raises:
        BadImageError: empty, truncated, not an image, of unknown range (32 bits a channel), a strip with one side more
            than 100 times the other, or of more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89,478,485 unless set);
            the last two are found before memory is taken for the pixels.
    """
    if not data:
        raise BadImageError(f"{name} is empty (0 bytes).", BAD_IMAGE_REMEDY)
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            # Pillow itself stops only at twice the limit, and warns below that.
            _require_within_limit(image.width * image.height, name)
            _require_no_strip(image, name)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            return _to_rgb(_upright(image), name)
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name} is not an image of a kind that is read.", BAD_IMAGE_REMEDY) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        _require_within_limit(int(found[1]) if found else None, name)
        raise BadImageError(f"{name} has too many pixels.", BAD_IMAGE_REMEDY) from error
    except _DAMAGED as error:
        raise BadImageError(f"cannot decode image {name}: {_one_line(error)}.", BAD_IMAGE_REMEDY) from error


def image_format(data: bytes) -> str:
    """The format of an encoded image that `decode_image` accepts, such as `JPEG`; reads its header only."""
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        return str(image.format)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that this Pillow has; `Image.open` does not take a name that it does not know."""
    Image.init()
    image_suffixes()  # makes the plugins known to Pillow
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _require_within_limit(pixels: int | None, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or (pixels is not None and pixels <= limit):
        return
    count = "too many" if pixels is None else f"{pixels:,}"
    raise BadImageError(f"{name} has {count} pixels; at most {limit:,} are decoded.", BAD_IMAGE_REMEDY)


def _require_no_strip(image: Image.Image, name: str) -> None:
    shorter, longer = sorted(image.size)
    if longer > _LONGEST * shorter:
        raise BadImageError(
            f"{name} is a strip of {image.width:,} x {image.height:,} pixels; sides may be {_LONGEST} to 1 at most.",
            BAD_IMAGE_REMEDY,
        )


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation wants it shown; one whose EXIF is damaged as it lies.

    `ImageOps.exif_transpose` also writes the EXIF anew, and fails where any other field of it is damaged.
    """
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGED:
        return image
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image, name).convert("RGB")
    if image.mode == "F":
        raise BadImageError(f"{name} holds floating-point values of unknown range.", BAD_IMAGE_REMEDY)
    if image.has_transparency_data:
        # The colours behind transparent parts are arbitrary, often black; white is what viewers show.
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image, name: str) -> Image.Image:
    """Upper 8 bits of 16-bit grey; `convert` would cut all values above 255 off in some versions of Pillow."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise BadImageError(f"{name} holds 32-bit values of unknown range.", BAD_IMAGE_REMEDY)
    return Image.fromarray((values >> 8).astype(np.uint8))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
