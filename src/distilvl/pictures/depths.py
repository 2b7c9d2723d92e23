"""What Pillow gets wrong of samples that are not 8 bits deep: put right before a picture is loaded and after."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

from distilvl.pictures.colour import UnknownRangeError

_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR = 258, 259, 262, 284  # TIFF's tags
_PLAIN, _WHITE_IS_ZERO, _SEPARATE = 1, 0, 2

# Pillow widens the values of these PNGs to 8 bits, but not the one that is transparent.
_NARROW = {"L;2": 3, "L;4": 15}


def require_whole_samples(image: Image.Image) -> None:
    """Refuse a TIFF whose colours Pillow would mix.

    Raises:
        UnknownRangeError: uncompressed planes of 16 bits, whose lower and upper bytes Pillow takes for pixels.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None or tags.get(_PLANAR) != _SEPARATE or tags.get(_COMPRESSION, _PLAIN) != _PLAIN:
        return
    if max(tags.get(_BITS, (1,))) > 8:
        raise UnknownRangeError("uncompressed planes of 16 bits (PlanarConfiguration 2), which are not read")


def widen_transparency(image: Image.Image) -> None:
    """Make the transparent colour of a PNG that is not loaded yet one of the values that its pixels will have."""
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return
    kind = image.tile[0].args
    if kind in _NARROW and isinstance(key, int):
        most = _NARROW[str(kind)]
        image.info["transparency"] = (key & most) * (255 // most)
    elif kind == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def as_meant(image: Image.Image) -> Image.Image:
    """A loaded picture with its grey values of 12 or 16 bits as its TIFF's tags say: from 0 to 65535, 0 is black."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or not image.mode.startswith("I;16"):
        return image
    values, changed = np.asarray(image), False
    if max(tags.get(_BITS, (16,))) == 12:
        values, changed = (values << 4) | (values >> 8), True
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values, changed = 0xFFFF - values, True
    return _like(image, values.astype(np.uint16)) if changed else image


def _like(image: Image.Image, values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> Image.Image:
    """Another picture of these values with the orientation, profile and format of `image`."""
    found = Image.fromarray(values)
    found.format, found.info = image.format, dict(image.info)
    return found
