"""Any mode of PIL's to 8-bit RGB in sRGB, with transparent parts on white."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.pictures.profiles import to_srgb


class UnknownRangeError(ValueError):
    """Values that no colour can be made of; says of which kind they are."""


def to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A loaded picture of any mode as RGB.

    Args:
        image: any mode of PIL's.
        profile: the ICC profile that belongs to it.

    Raises:
        UnknownRangeError: floating-point values, or integers of more than 16 bits.
    """
    image = _plain(image)
    if image.has_transparency_data:
        return _on_white(image, profile)
    if image.mode == "P":
        image = image.convert("RGB")
    return to_srgb(image, profile).convert("RGB")


def _plain(image: Image.Image) -> Image.Image:
    """The same picture in a mode out of L, LA, P, PA, RGB, RGBA and CMYK."""
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bits(image)
    if mode == "F":
        raise UnknownRangeError("floating-point values of unknown range")
    # La and RGBa are multiplied with their transparency already. Pillow converts each to its brother only.
    others = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
    return image.convert(others[mode]) if mode in others else image


def _on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours behind transparent parts are arbitrary, often black; white is what viewers show."""
    coloured = image.convert("RGBA")
    if profile:
        # Grey stays grey until then, so that a profile of grey fits.
        opaque = image.convert("L") if image.mode in ("L", "LA") else coloured.convert("RGB")
        alpha = coloured.getchannel("A")
        coloured = to_srgb(opaque, profile).convert("RGBA")
        coloured.putalpha(alpha)
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(coloured)
    return canvas.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Upper 8 bits of 16-bit grey; `convert` cuts all values above 255 off.

    Mode I says nothing of its range; what has no value above 255 was made of 8 bits, but in a PGM, which says more.
    """
    values = np.asarray(image)
    key = image.info.get("transparency")
    if isinstance(key, int):
        # Compared as deep as the file has it; of the upper 8 bits alone, other values would be transparent, too.
        opaque = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        grey = _upper_bits(image, values).convert("LA")
        grey.putalpha(opaque)
        return grey
    return _upper_bits(image, values)


def _upper_bits(image: Image.Image, values: npt.NDArray[np.integer]) -> Image.Image:
    if image.mode == "I" and image.format != "PPM" and values.size and 0 <= values.min() <= values.max() <= 0xFF:
        return Image.fromarray(values.astype(np.uint8))
    if values.size and (values.min() < 0 or values.max() > 0xFFFF):
        raise UnknownRangeError("32-bit values of unknown range")
    return Image.fromarray((values >> 8).astype(np.uint8))
