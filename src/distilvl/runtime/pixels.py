"""From an RGB picture to the pixels that the image graph takes, step by step as the student's processor does it.

Steps, each a flat JSON object:

    {"step": "resize", "height": H, "width": W, "resample": NAME}      both sides
    {"step": "resize_shorter", "side": S, "resample": NAME}            the shorter side to S, the longer in proportion
    {"step": "center_crop", "height": H, "width": W}                   black where the picture is too small
    {"step": "reverse_channels"}                                       RGB to BGR

Scale and normalisation are in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.pictures import upright_rgb

Step: TypeAlias = Mapping[str, Any]

RESAMPLE = {resample.name.lower(): resample for resample in Image.Resampling}
"""Pillow's filters by the names used in steps: nearest, box, bilinear, hamming, bicubic, lanczos."""

_SIDES = {"resize": ("height", "width"), "resize_shorter": ("side",), "center_crop": ("height", "width")}
_FIELDS: dict[str, tuple[str, ...]] = {**_SIDES, "reverse_channels": ()}


def check_steps(steps: Any) -> tuple[Step, ...]:
    """The steps as they stand in a manifest.

    Raises:
        ValueError, TypeError, KeyError: a step that is unknown or lacks a field.
    """
    for step in steps:
        name = step["step"]
        if name not in _FIELDS:
            raise ValueError(f"its step {name!r} is unknown")
        if any(not isinstance(step[field], int) or step[field] < 1 for field in _FIELDS[name]):
            raise ValueError(f"its step {name} has a side that is not a number of pixels")
        if name.startswith("resize") and step["resample"] not in RESAMPLE:
            raise ValueError(f"its filter {step['resample']!r} is unknown")
    return tuple(steps)


def to_pixels(images: Sequence[Image.Image], steps: Sequence[Step], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(n, 3, H, W) uint8.

    Args:
        images: pictures of any mode; see `distilvl.pictures.upright_rgb`.
        steps: what `check_steps` let pass.
        size: H and W, which the steps must lead to.

    Raises:
        DistilvlError: an item that is no picture or of unknown range, or steps that lead to another size.
    """
    pixels = np.empty((len(images), 3, *size), dtype=np.uint8)
    for k, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise DistilvlError(f"item {k} is no picture but a {type(image).__name__}.", "Give PIL images.")
        picture = upright_rgb(image, f"item {k}")
        for step in steps:
            picture = _apply(step, picture)
        if picture.size != (size[1], size[0]):
            raise DistilvlError(
                f"the steps lead from {image.size[0]} x {image.size[1]} pixels to {picture.size[0]} x "
                f"{picture.size[1]}, not {size[1]} x {size[0]}.",
                "Export the student again.",
            )
        pixels[k] = np.asarray(picture).transpose(2, 0, 1)
    return pixels


def _apply(step: Step, image: Image.Image) -> Image.Image:
    name = step["step"]
    if name == "resize":
        return image.resize((step["width"], step["height"]), RESAMPLE[step["resample"]])
    if name == "resize_shorter":
        shorter, longer = sorted(image.size)
        long_side = int(step["side"] * longer / shorter)
        size = (step["side"], long_side) if image.width <= image.height else (long_side, step["side"])
        return image.resize(size, RESAMPLE[step["resample"]])
    if name == "center_crop":
        return _center_crop(image, step["height"], step["width"])
    return Image.merge("RGB", image.split()[::-1])


def _center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle `height` x `width`; where the picture is smaller, black is added first, the odd pixel at the start."""
    whole_height, whole_width = max(height, image.height), max(width, image.width)
    # As the processors of transformers count: rounded up for what is added, down for what is cut off.
    top = (image.height - height) // 2 + -(-(whole_height - image.height) // 2)
    left = (image.width - width) // 2 + -(-(whole_width - image.width) // 2)
    if (whole_width, whole_height) != image.size:
        canvas = Image.new("RGB", (whole_width, whole_height))
        canvas.paste(image, (-(-(whole_width - image.width) // 2), -(-(whole_height - image.height) // 2)))
        image = canvas
    return image.crop((left, top, left + width, top + height))
