"""Capture times: the three fields in their order, and damaged ones."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from distilvl.search.exif import capture_time


def _jpeg(kind: str = "JPEG", **times: str) -> bytes:
    exif = Image.Exif()
    inner = {}
    for name, value in times.items():
        tag = ExifTags.Base[name].value
        if name == "DateTime":
            exif[tag] = value
        else:
            inner[tag] = value
    if inner:
        exif[ExifTags.IFD.Exif] = inner
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, kind, exif=exif)
    return out.getvalue()


def test_the_time_of_the_picture_comes_first() -> None:
    times = {
        "DateTimeOriginal": "2001:01:01 01:01:01",
        "DateTimeDigitized": "2002:02:02 02:02:02",
        "DateTime": "2003:03:03 03:03:03",
    }
    for year in (2001, 2002, 2003):
        found = capture_time(_jpeg(**times))
        assert found is not None
        assert found.year == year
        times.pop(next(iter(times)))
    assert capture_time(_jpeg()) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_kinds_of_files(kind: str) -> None:
    assert capture_time(_jpeg(kind, DateTime="2020:05:06 07:08:09")) == datetime(2020, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2020-05-06 07:08:09", datetime(2020, 5, 6, 7, 8, 9)),
        ("2020-05-06T07:08:09+02:00", datetime(2020, 5, 6, 7, 8, 9)),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2020:13:01 00:00:00", None),
        ("", None),
    ],
)
def test_what_cameras_write_instead(written: str, read: datetime | None) -> None:
    assert capture_time(_jpeg(DateTimeOriginal=written)) == read


def test_a_bad_first_time_gives_way_to_the_next() -> None:
    found = capture_time(_jpeg(DateTimeOriginal="0000:00:00 00:00:00", DateTime="2020:05:06 07:08:09"))
    assert found == datetime(2020, 5, 6, 7, 8, 9)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=30))
def test_damaged_bytes_never_raise(place: int, noise: bytes) -> None:
    data = _jpeg(DateTimeOriginal="2020:05:06 07:08:09", DateTime="2020:05:06 07:08:09")
    capture_time(data[:place] + noise + data[place + len(noise) :])
    capture_time(data[:place])
    capture_time(noise)
