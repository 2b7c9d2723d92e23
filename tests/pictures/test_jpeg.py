"""JPEGs of many scans, and JPEGs that lack their end."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import BadImageError
from distilvl.pictures import decode_image
from distilvl.pictures.containers import most_scans

from .drawn import encoded


def photograph(size: tuple[int, int] = (320, 240)) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def of_scans(count: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(photograph(size), "JPEG", progressive=True)
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    return data[:-2] + data[scans[-1] : -2] * (count - len(scans)) + data[-2:]


def test_a_bomb_of_scans_is_refused_at_once() -> None:
    data = of_scans(6000, (400, 400))
    began = time.process_time()
    with pytest.raises(BadImageError, match=r"n has more than 100 scans, each of .* pixels\. Replace"):
        decode_image(data, "n")
    assert time.process_time() - began < 1


def test_the_limit_of_scans_itself_is_read() -> None:
    assert decode_image(of_scans(100), "n").size == (64, 64)
    with pytest.raises(BadImageError, match="scans"):
        decode_image(of_scans(101), "n")


def test_a_large_picture_may_have_fewer_scans_and_always_those_that_encoders_write() -> None:
    data = of_scans(60)
    found = [most_scans(data, pixels) for pixels in (1_000_000, 33_000_000, 50_000_000, 200_000_000)]
    assert found == [None, None, 40, 16]
    assert most_scans(of_scans(16), 10**12) is None


def test_previews_and_appended_data_are_no_scans() -> None:
    data = encoded(photograph(), "JPEG", comment=b"\xff\xda" * 300)
    assert most_scans(data, 10**12) is None
    assert most_scans(encoded(photograph(), "JPEG") + b"\xff\xda" * 300, 10**12) is None
    assert decode_image(data, "n").size == (320, 240)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 7}], ids=repr)
@pytest.mark.parametrize("lost", [1, 2, 3, 4, 8])
def test_the_last_bytes_may_be_missing(progressive: bool, options: dict[str, int], lost: int) -> None:
    data = encoded(photograph(), "JPEG", progressive=progressive, **options)
    whole, found = (np.asarray(decode_image(part, "n"), dtype=int) for part in (data, data[:-lost]))
    assert whole.shape == found.shape
    np.testing.assert_array_equal(found[:220], whole[:220])


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 7}, {"progressive": True}], ids=repr)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_no_more_than_that(options: dict[str, int], share: float) -> None:
    data = encoded(photograph(), "JPEG", **options)
    cut = data[: int(len(data) * share)]
    with pytest.raises(BadImageError, match=r"cannot decode image holiday/a\.jpg.*Replace the file"):
        decode_image(cut, "holiday/a.jpg")
    if "progressive" not in options:
        with pytest.raises(BadImageError, match="truncated"):
            decode_image(cut + b"\xff\xd9", "a file that was cut off and closed again")


def test_what_is_read_lacks_no_more_than_a_twentieth() -> None:
    """Byte by byte: above the last rows the picture is that of the whole file wherever it is read at all."""
    data = encoded(photograph((160, 480)), "JPEG", quality=90)
    whole = np.asarray(decode_image(data, "n"), dtype=int)
    read = refused = 0
    for lost in range(1, len(data) // 8, 13):
        try:
            found = np.asarray(decode_image(data[:-lost], "n"), dtype=int)
        except BadImageError:
            refused += 1
            continue
        read += 1
        assert refused == 0, "who lacks less is read"
        np.testing.assert_array_equal(found[: int(480 * 0.95) - 16], whole[: int(480 * 0.95) - 16])
    assert read > 5
    assert refused > 5


def test_a_picture_without_its_last_scan_is_not_whole() -> None:
    data = encoded(photograph(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadImageError):
        decode_image(data[:last], "n")
