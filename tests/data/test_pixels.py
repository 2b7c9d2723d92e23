"""JPEGs decoded at a reduced scale: how large, how close, and what is left alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distilvl.config import TrainingConfig
from distilvl.data.left_out import MISSING, NOT_DECODED
from distilvl.data.pixels import cached_pixels, decode_pixels
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.io.hashes import image_key
from distilvl.pictures import decode_image


def resize(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(image.resize((8, 8))).transpose(2, 0, 1) for image in images])


def _dataset(folder: Path, count: int) -> PairDataset:
    records = []
    for k in range(count):
        path = folder / f"{k}.png"
        Image.new("RGB", (8, 8), (k, 0, 0)).save(path)
        records.append(Record(str(k), FileImage(str(path)), (f"caption {k}",), "train"))
    return PairDataset("folder", tuple(records))


def test_pixels_and_keys_stand_in_the_datasets_order(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 70)
    cache = decode_pixels(dataset, resize)
    assert cache.pixels.shape == (70, 3, 8, 8)
    assert cache.pixels[:, 0, 0, 0].tolist() == list(range(70))
    assert cache.keys == [image_key(record.image.read()) for record in dataset]


def test_bad_images_stop_or_are_skipped_and_named(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 5)
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "JPEG")
    (tmp_path / "1.png").write_bytes(buffer.getvalue()[:400])
    (tmp_path / "3.png").unlink()
    with pytest.raises(BadImageError, match=r"1\.png"):
        decode_pixels(dataset, resize)
    cache = decode_pixels(dataset, resize, skip_bad=True)
    assert [record.image_id for record in cache.dataset] == ["0", "2", "4"]
    assert [(Path(name).name, reason) for name, reason in cache.left_out.items()] == [
        ("1.png", NOT_DECODED), ("3.png", MISSING),
    ]  # fmt: skip
    assert cache.pixels[:, 0, 0, 0].tolist() == [0, 2, 4]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 2)
    for record in dataset:
        Path(record.image.name).write_bytes(b"no image")
    with pytest.raises(BadImageError, match="no image of folder"):
        decode_pixels(dataset, resize, skip_bad=True)


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
    with pytest.raises(ValueError, match="moves the edges of crops"):
        TrainingConfig(crops=2, reduced_jpeg=True)
