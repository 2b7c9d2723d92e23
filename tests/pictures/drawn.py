"""A drawn picture in every mode of PIL's, beside the RGB picture that it stands for."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms, ImageDraw

LOSSLESS = ("RGB", "RGBA", "RGBa", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "LAB", "HSV", "I")
"""Modes that transformers' processors get right, too."""

MODES = (*LOSSLESS, "La", "I;16", "I;16L", "I;16B")


def drawn(size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Seven plain colours, so that a palette and a page of CMYK hold all of it."""
    image = Image.new("RGB", size, (40, 90, 200))
    draw = ImageDraw.Draw(image)
    colours = ((250, 200, 30), (200, 30, 60), (20, 160, 80), (240, 240, 240), (10, 10, 10), (150, 60, 170))
    for k, colour in enumerate(colours):
        draw.rectangle([25 * k, 15 * (k % 3) + 10, 25 * k + 20, 15 * (k % 3) + 60], fill=colour)
    return image


def in_mode(mode: str) -> tuple[Image.Image, Image.Image]:
    """`drawn()` in a mode, opaque, and what it is to be read as."""
    image = drawn()
    grey = image.convert("L")
    if mode in ("L", "LA", "I"):
        return grey.convert(mode), grey.convert("RGB")
    if mode == "La":
        return grey.convert("LA").convert("La"), grey.convert("RGB")
    if mode.startswith("I;16"):
        wide = np.asarray(grey).astype(np.uint16) * 257
        order = ">u2" if mode.endswith("B") else "<u2"
        return Image.frombytes(mode, grey.size, wide.astype(order).tobytes()), grey.convert("RGB")
    if mode == "1":
        return image.convert("1"), image.convert("1").convert("RGB")
    if mode == "PA":
        return image.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA"), image
    if mode == "P":
        return image.convert("P", palette=Image.Palette.ADAPTIVE), image
    if mode == "RGBa":
        return image.convert("RGBA").convert("RGBa"), image
    return image.convert(mode), image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def swapped_profile() -> bytes:
    """A profile of RGB in which red and green have changed places; no picture would look right without it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for k in range(int.from_bytes(profile[128:132], "big")):
        entry = 132 + 12 * k
        places[bytes(profile[entry : entry + 4])] = entry
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def srgb_profile() -> bytes:
    """That of LittleCMS."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
