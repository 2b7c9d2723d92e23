from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from distilvl.data.duplicates import perceptual_hash, thumbnail


def picture(seed: int) -> Image.Image:
    """Soft coloured blobs, as photographs have."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


def test_the_hash_by_its_definition() -> None:
    image = picture(0)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    basis = np.array([[math.cos(math.pi * k * (2 * n + 1) / 64) for n in range(32)] for k in range(8)])
    low = basis @ grey @ basis.T
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert perceptual_hash(image) == int(bits, 2)


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_and_others_are_far(seed: int) -> None:
    image = picture(seed)
    buffer = io.BytesIO()
    image.resize((96, 96)).save(buffer, "JPEG", quality=40)
    copy = Image.open(buffer).convert("RGB")
    assert (perceptual_hash(image) ^ perceptual_hash(copy)).bit_count() <= 4
    assert (perceptual_hash(image) ^ perceptual_hash(picture(seed + 100))).bit_count() > 12


def test_thumbnail_has_the_mean_colours() -> None:
    image = Image.new("RGB", (80, 80), (10, 200, 30))
    image.paste((250, 0, 0), (0, 0, 10, 10))
    small = thumbnail(image)
    assert small.shape == (8, 8, 3)
    assert (small[0, 0].tolist(), small[3, 5].tolist()) == ([250, 0, 0], [10, 200, 30])
