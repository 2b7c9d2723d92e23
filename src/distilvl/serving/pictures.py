"""Pictures in requests: bytes to pixels, only when they are within the limit; `spelling` has the way to the bytes."""

from __future__ import annotations

import sys

from PIL import Image

from distilvl.errors import BadImageError, TooManyPixelsError
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, read_header
from distilvl.serving.faults import Fault
from distilvl.serving.magic import kind_of


def count_pixels(data: bytes, most: int, param: str) -> int:
    """Width times height, from the picture's header: nothing is decoded.

    Raises:
        Fault: 413, more than `most`; 422, not a picture.
    """
    try:
        header = read_header(data, param)
        pixels = header.width * header.height
    except TooManyPixelsError:
        pixels = most + 1
    except BadImageError as error:
        kind = kind_of(data)
        what = f"a {kind} that is damaged or not read here" if kind else "not a picture that can be read"
        raise Fault(422, f"{param} is {what}.", code="invalid_image", param=param) from error
    if pixels > most:
        message = f"{param} has more than {most:,} pixels. Send it smaller."
        raise Fault(413, message, code="too_many_pixels", param=param)
    return pixels


def decode_picture(data: bytes, param: str) -> Image.Image:
    """The RGB picture, upright; see `distilvl.pictures.decode_image`. `count_pixels` has found it small enough.

    Raises:
        Fault: 422, damaged or of a kind that is not read.
    """
    try:
        return decode_image(data, param, most=sys.maxsize)
    except BadImageError as error:
        message = str(error).removesuffix(BAD_IMAGE_REMEDY).strip()
        raise Fault(422, message, code="invalid_image", param=param) from error
