"""JPEGs decoded at a reduced scale: how large, how close, and what is left alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distilvl.config import TrainingConfig
from distilvl.data.pixel_cache import cached_pixels
from distilvl.data.pixels import decode_pixels
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.pictures import decode_image


def _photograph(kind: str = "JPEG", orientation: int = 1, size: tuple[int, int] = (1000, 600)) -> bytes:
    """Smooth shapes with fine grain, as photographs are."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (12, 20, 3), dtype=np.uint8))
    rows = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(np.float64)
    rows += random.normal(0, 6, (*rows.shape[:2], 1))
    image, buffer = Image.fromarray(np.clip(rows, 0, 255).astype(np.uint8)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("at_least", "size"), [(601, (1000, 600)), (300, (500, 300)), (299, (500, 300)), (150, (250, 150)), (10, (125, 75))]
)
def test_both_sides_stay_at_least_so_long(at_least: int, size: tuple[int, int]) -> None:
    assert decode_image(_photograph(), "a", at_least).size == size


def test_pixels_at_half_the_size_asked_for_are_close() -> None:
    data = _photograph()
    full, reduced = (
        np.asarray(decode_image(data, "a", at_least).resize((112, 112), Image.Resampling.BICUBIC), dtype=np.float64)
        for at_least in (None, 224)
    )
    difference = np.abs(full - reduced)
    assert 0 < difference.mean() < 0.8
    assert np.quantile(difference, 0.99) <= 4


def test_other_formats_stay_as_they_are_and_orientation_is_applied() -> None:
    data = _photograph("PNG")
    np.testing.assert_array_equal(decode_image(data, "a", 10), decode_image(data, "a"))
    assert decode_image(_photograph(orientation=6), "a", 300).size == (300, 500)


def test_a_reduced_cache_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_photograph())
    dataset = PairDataset("one", (Record("a", FileImage(str(tmp_path / "a.jpg")), ("a",), "train"),))

    def resize(images: list[Image.Image]) -> npt.NDArray[np.uint8]:
        return np.stack([np.asarray(image.resize((32, 32))).transpose(2, 0, 1) for image in images])

    for at_least in (None, 64):
        expected = decode_pixels(dataset, resize, at_least=at_least)
        found = cached_pixels(dataset, resize, "p", tmp_path / "cache", at_least=at_least)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_views_are_cut_from_whole_images() -> None:
    with pytest.raises(ValueError, match="moves the edges of views"):
        TrainingConfig(views=2, reduced_jpeg=True)
