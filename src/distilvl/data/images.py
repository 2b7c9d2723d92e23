"""Which files are images, and how their bytes become pixels; the decoding itself is in `distilvl.pictures`."""

from __future__ import annotations

from distilvl.pictures import BAD_IMAGE_REMEDY, decode_image, max_pixels, set_max_pixels

__all__ = ["BAD_IMAGE_REMEDY", "IMAGE_SUFFIXES", "decode_image", "max_pixels", "set_max_pixels"]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
"""Endings, in lower case, by which a folder's images are told from its other files."""
