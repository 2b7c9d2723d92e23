"""Pictures in requests: bytes to pixels, only when they are within the limit; `spelling` has the way to the bytes."""

from __future__ import annotations

import io

from PIL import Image

from distilvl.data.images import BAD_IMAGE_REMEDY, decode_image, image_format
from distilvl.errors import BadImageError
from distilvl.serving.faults import Fault
from distilvl.serving.magic import kind_of


def count_pixels(data: bytes, most: int, param: str) -> int:
    """Width times height, from the picture's header: nothing is decoded.

    Raises:
        Fault: 413, more than `most`; 422, not a picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=(image_format(data),)) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        raise _too_many(most, param) from error
    except Exception as error:  # format plugins raise anything on damaged bytes
        kind = kind_of(data)
        what = f"a {kind} that is damaged or not read here" if kind else "not a picture that can be read"
        raise Fault(422, f"{param} is {what}.", code="invalid_image", param=param) from error
    if pixels > most:
        raise _too_many(most, param)
    return pixels


def decode_picture(data: bytes, param: str) -> Image.Image:
    """The RGB picture, upright; see `distilvl.data.images.decode_image`.

    Raises:
        Fault: 422, damaged or of a kind that is not read.
    """
    try:
        return decode_image(data, param)
    except BadImageError as error:
        message = str(error).removesuffix(BAD_IMAGE_REMEDY).strip()
        raise Fault(422, message, code="invalid_image", param=param) from error


def _too_many(most: int, param: str) -> Fault:
    message = f"{param} has more than {most:,} pixels. Send it smaller."
    return Fault(413, message, code="too_many_pixels", param=param)
