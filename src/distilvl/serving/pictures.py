"""Pictures in requests: data URIs to bytes to pixels, each step only when the one before is within its limit."""

from __future__ import annotations

import base64
import binascii
import re
import sys

from PIL import Image

from distilvl.errors import BadImageError, TooManyPixelsError
from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, read_header
from distilvl.serving.faults import Fault

PREFIX = "data:image/"
_HEAD = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64")
_LONGEST_HEAD = 200


def picture_bytes(uri: str, param: str) -> bytes:
    """The encoded picture in a data URI.

    Args:
        uri: `data:image/TYPE;base64,...`.
        param: the field that holds it, for messages.

    Raises:
        Fault: 422, another address or not base64.
    """
    comma = uri.find(",", 0, _LONGEST_HEAD)
    if comma < 0 or not _HEAD.fullmatch(uri[:comma]):
        message = f"{param} is not a picture as data:image/TYPE;base64,... (addresses are not fetched)."
        raise Fault(422, message, code="invalid_image", param=param)
    try:
        return base64.b64decode(uri[comma + 1 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault(422, f"{param} is not base64.", code="invalid_image", param=param) from error


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
        raise Fault(422, f"{param} is not a picture that can be read.", code="invalid_image", param=param) from error
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
