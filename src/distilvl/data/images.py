"""How a picture's bytes become pixels: `distilvl.pictures`, under the name that it had."""

from __future__ import annotations

from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, max_pixels, set_max_pixels

__all__ = ["BAD_IMAGE_REMEDY", "decode_image", "max_pixels", "set_max_pixels"]
