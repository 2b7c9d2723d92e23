"""Any mode of PIL's to 8-bit RGB in sRGB: colour profiles, sample depths, and transparent parts on white."""

import functools
import io
import logging
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, features

logger = logging.getLogger("distilvl")
_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION  # as photo editors do
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's modes, and what a profile calls its space
_SAME = 2  # of 255: a profile that changes no colour by more is sRGB under another name


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` (RGB, L or CMYK) in sRGB, itself where it is so already; a damaged or unfitting profile is ignored."""
    transform = _transform(bytes(profile), image.mode) if profile and image.mode in _SPACES else None
    return image if transform is None else transform.apply(image)


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any:
    """How a picture with this profile becomes sRGB; None where there is nothing to do. Cameras have few profiles."""
    if not _has_littlecms():
        return None
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=_INTENT, flags=_FLAGS)
        return None if _changes_nothing(transform, mode) else transform
    # LittleCMS and its wrapper raise anything on profiles that are damaged, or lack what a transform needs.
    except Exception:
        return None


def _changes_nothing(transform: Any, mode: str) -> bool:
    if mode == "CMYK":
        return False
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
        probe = Image.fromarray(np.ascontiguousarray(colours.reshape(16, -1, 3)))
    before, after = (np.asarray(picture, dtype=np.int16) for picture in (probe.convert("RGB"), transform.apply(probe)))
    return int(np.abs(before - after).max()) <= _SAME


@functools.cache
def _has_littlecms() -> bool:
    if features.check("littlecms2"):
        return True
    logger.warning("this Pillow was built without LittleCMS: colour profiles of pictures are not applied.")
    return False


class UnknownRangeError(ValueError):
    """Values that no colour can be made of; says of which kind they are."""


def to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A loaded picture of any mode as RGB, its ICC profile applied; `UnknownRangeError` for floats and over 16 bits."""
    image = _plain(image)
    if image.has_transparency_data:
        return _on_white(image, profile)
    return to_srgb(image.convert("RGB") if image.mode == "P" else image, profile).convert("RGB")


def _plain(image: Image.Image) -> Image.Image:
    """The same picture in a mode out of L, LA, P, PA, RGB, RGBA and CMYK."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise UnknownRangeError("floating-point values of unknown range")
    # La and RGBa are multiplied with their transparency already. Pillow converts each to its brother only.
    others = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB"}
    return image.convert(others[image.mode]) if image.mode in others else image


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
    """Upper 8 bits of 16-bit grey; `convert` cuts all values above 255 off."""
    # Mode I says nothing of its range; what has no value above 255 was made of 8 bits, but in a PGM, which says more.
    values = np.asarray(image)
    least, most = (values.min(), values.max()) if values.size else (0, 0)
    if least < 0 or most > 0xFFFF:
        raise UnknownRangeError("32-bit values of unknown range")
    of_8_bits = image.mode == "I" and image.format != "PPM" and values.size and most <= 0xFF
    grey = Image.fromarray((values if of_8_bits else values >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        # Compared as deep as the file has it; of the upper 8 bits alone, other values would be transparent, too.
        grey = grey.convert("LA")
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR = 258, 259, 262, 284  # TIFF's tags
_PLAIN, _WHITE_IS_ZERO, _SEPARATE = 1, 0, 2
_NARROW = {"L;2": 3, "L;4": 15}  # PNGs whose values Pillow widens to 8 bits, but not the one that is transparent


def require_whole_samples(image: Image.Image) -> None:
    """Refuse a TIFF of uncompressed planes of 16 bits, whose lower and upper bytes Pillow takes for pixels."""
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
    if not changed:
        return image
    found = Image.fromarray(values.astype(np.uint16))
    found.format, found.info = image.format, dict(image.info)
    return found
