"""The one way to read a picture: bytes, or a PIL image of any mode, to upright 8-bit RGB in sRGB.

It needs Pillow and NumPy only, so that `distilvl.runtime` loads without PyTorch.
"""

from distilvl.pictures.decode import (
    BAD_IMAGE_REMEDY,
    DECODING_VERSION,
    Header,
    decode_image,
    full_size,
    open_image,
    read_header,
    supported_formats,
    upright_rgb,
)
from distilvl.pictures.limits import DEFAULT_MAX_PIXELS, MAX_PIXELS_VARIABLE, max_pixels, set_max_pixels

__all__ = [
    "BAD_IMAGE_REMEDY", "DECODING_VERSION", "DEFAULT_MAX_PIXELS", "MAX_PIXELS_VARIABLE", "Header", "decode_image",
    "full_size", "max_pixels", "open_image", "read_header", "set_max_pixels", "supported_formats", "upright_rgb",
]  # fmt: skip
