from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.data.duplicates import near_pairs, perceptual_hash, thumbnail


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


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 63), max_size=18)), max_size=25),
    st.sampled_from([0, 1, 4, 8, 15]),
)
def test_the_same_pairs_as_comparing_all_with_all(
    roots: list[int], flips: list[tuple[int, list[int]]], distance: int
) -> None:
    hashes = list(roots)
    for root, bits in flips:
        changed = roots[root % len(roots)]
        for bit in bits:
            changed ^= 1 << bit
        hashes.append(changed)
    expected = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= distance
    ]
    assert near_pairs(np.array(hashes, dtype=np.uint64), distance).tolist() == expected


@pytest.mark.parametrize("distance", [-1, 16])
def test_distance_out_of_range(distance: int) -> None:
    with pytest.raises(ValueError):
        near_pairs(np.zeros(2, dtype=np.uint64), distance)
