"""Colour profiles (ICC) to sRGB, by LittleCMS through Pillow."""

from __future__ import annotations

import functools
import io
import logging
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

logger = logging.getLogger("distilvl")

# Relative colorimetric with black point compensation, as photo editors convert by default: colours that both have stay
# what they are.
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""Pillow's modes, and what a profile that fits them calls its space."""

_SAME = 2
"""Of 255: a profile that changes no colour by more is sRGB under another name."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` (RGB, L or CMYK) in sRGB: as it is where there is no profile, or it is sRGB's; else RGB.

    A profile that is damaged or made for another kind of picture is ignored, as browsers do.
    """
    if not profile or image.mode not in _SPACES:
        return image
    transform = _transform(bytes(profile), image.mode)
    if transform is None:
        return image
    converted: Image.Image = transform.apply(image)
    return converted


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> Any | None:
    """How a picture with this profile becomes sRGB; None where there is nothing to do. Cameras have few profiles."""
    if not _has_littlecms():
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        transform: Any = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", renderingIntent=_INTENT, flags=_FLAGS
        )
        return None if _changes_nothing(transform, mode) else transform
    # LittleCMS and its wrapper raise anything on profiles that are damaged, or lack what a transform needs.
    except Exception:
        return None


def _changes_nothing(transform: Any, mode: str) -> bool:
    if mode == "CMYK":
        return False
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
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
