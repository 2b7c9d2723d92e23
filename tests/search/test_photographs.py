"""Capture times: the three fields in their order, and damaged ones."""

from __future__ import annotations

import io
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from distilvl.search.photographs import capture_time, parse_time


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


_TIME = datetime(2020, 5, 6, 7, 8, 9)
_WRITTEN = {
    "2020:05:06 07:08:09": _TIME,
    "2020-05-06 07:08:09": _TIME,
    "2020/05/06 07:08:09": _TIME,
    "2020.05.06 07.08.09": _TIME,
    "2020:05:06T07:08:09": _TIME,
    "2020-05-06T07:08:09+02:00": _TIME,
    "2020-05-06T07:08:09Z": _TIME,
    "2020-05-06T07:08:09.123456-0700": _TIME,
    "2020:05:06 07:08:09.12": _TIME,
    "2020:05:06 07:08:09\0": _TIME,
    "2020:05:06 07:08:09   \0\0": _TIME,
    "2020:05:06 07:08:09\0rest of a buffer": _TIME,
    " 2020: 5: 6  7: 8: 9": _TIME,
    "2020:05:06:07:08:09": _TIME,
    "20200506070809": _TIME,
    "20200506T070809Z": _TIME,
    "20200506 070809": _TIME,
    "Wed May  6 07:08:09 2020": _TIME,
    "2020:05:06 07:08:09 AM": _TIME,
    "2020:05:06 07:08:09 PM": datetime(2020, 5, 6, 19, 8, 9),
    "2020:05:06 07:08:09下午": datetime(2020, 5, 6, 19, 8, 9),
    **dict.fromkeys(
        (
            f"2020:05:06 {clock}"
            for clock in (
                *("7:08:09 p. m.", "7:08:09 P", "7:08:09 μ.μ.", "下午7:08:09", "오후 7:08:09", "PM 7:08:09"),
                "7:08:09\u202fPM",
            )
        ),
        datetime(2020, 5, 6, 19, 8, 9),
    ),
    "2020:05:06 7:08:09 a. m.": _TIME,
    "2020:05:06 7:08:09 π.μ.": _TIME,
    "2020:05:06 -1:00:00": None,
    "2020:05:06xyz": None,
    "2020:05:06 07:08:09 in the evening": None,
    "2020:05:06 18:08:09 AM": None,
    "2020:05:06 07:08-07:00": datetime(2020, 5, 6, 7, 8),
    "2020:05:06 12:08:09 am": datetime(2020, 5, 6, 0, 8, 9),
    "2020:05:06 07:08": datetime(2020, 5, 6, 7, 8),
    "2020:05:06": datetime(2020, 5, 6),
    "2020-05-06": datetime(2020, 5, 6),
    "20200506": datetime(2020, 5, 6),
    "2020:05:06   :  :  ": datetime(2020, 5, 6),
    "2020:05:06 24:00:00": datetime(2020, 5, 7),
    "2020:12:31 24:15:30": datetime(2020, 12, 31, 0, 15, 30),
    "2020:05:06 07:08:60": datetime(2020, 5, 6, 7, 9),
    "0000:00:00 00:00:00": None,
    "0000:00:00": None,
    "0001:01:01 00:00:00": None,
    "9999:12:31 23:59:59": None,
    "2020:00:00 00:00:00": None,
    "2020:02:30 00:00:00": None,
    "    :  :     :  :  ": None,
    "2020:13:01 00:00:00": None,
    "2020:05:06 25:00:00": None,
    "2020:05:06 07:61:00": None,
    "20:05:06 07:08:09": None,
    "06:05:2020 07:08:09": None,
    "06/05/20": None,
    "12020:05:06 07:08:09": None,
    "2020": None,
    "1588748889": None,
    "yesterday": None,
    "": None,
}


@pytest.mark.parametrize("written", _WRITTEN)
def test_what_cameras_and_scanners_write(written: str) -> None:
    assert parse_time(written) == _WRITTEN[written]
    assert parse_time(written.encode()) == _WRITTEN[written]
    # As the file's only time, in either of its two tables.
    if "\0rest" not in written and written.isascii() and written.strip():
        assert capture_time(_jpeg(DateTimeOriginal=written)) == _WRITTEN[written]
        assert capture_time(_jpeg(DateTime=written)) == _WRITTEN[written]


@pytest.mark.parametrize("value", [None, 5, 2020.5, (), ("2020:05",), [None], object(), "2020:05:06 07:08:09 " * 10**5])
def test_other_values_are_no_times_and_never_an_error(value: object) -> None:
    assert parse_time(value) in (None, _TIME)


@given(st.text(st.sampled_from("0123456789:-/. TZ+\0apm"), max_size=30))
def test_a_year_is_one_that_is_written(text: str) -> None:
    found = parse_time(text)
    assert found is None or f"{found.year:04}" in text or (found.month, found.day, found.hour) == (1, 1, 0)


def test_scanners_write_the_picture_s_time_into_the_outer_table() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTimeOriginal] = "2020:05:06 07:08:09"
    exif[ExifTags.Base.DateTime] = "2024:01:01 00:00:00"
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "TIFF", exif=exif)
    assert capture_time(out.getvalue()) == _TIME


_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    "<rdf:Description{attribute}>{element}</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("attribute", "element"),
    [
        (' exif:DateTimeOriginal="2020-05-06T07:08:09+01:00"', ""),
        (' xmp:CreateDate="2024-01-01"', "<photoshop:DateCreated>2020-05-06T07:08:09</photoshop:DateCreated>"),
    ],
)
def test_the_times_of_xmp_come_after_those_of_exif(kind: str, attribute: str, element: str) -> None:
    xmp = _PACKET.format(attribute=attribute, element=element).encode()
    for written, read in (
        ("", _TIME),
        ("0000:00:00 00:00:00", _TIME),
        ("2001:01:01 01:01:01", datetime(2001, 1, 1, 1, 1, 1)),
    ):
        exif = Image.Exif()
        if written:
            exif[ExifTags.Base.DateTime] = written
        out = io.BytesIO()
        save = (
            {"tiffinfo": {700: xmp, **({306: written} if written else {})}}
            if kind == "TIFF"
            else {"xmp": xmp, "exif": exif}
        )
        Image.new("RGB", (8, 8)).save(out, kind, **save)
        assert capture_time(out.getvalue()) == read


def test_a_bad_first_time_gives_way_to_the_next() -> None:
    found = capture_time(_jpeg(DateTimeOriginal="0000:00:00 00:00:00", DateTime="2020:05:06 07:08:09"))
    assert found == datetime(2020, 5, 6, 7, 8, 9)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=30))
def test_damaged_bytes_never_raise(place: int, noise: bytes) -> None:
    data = _jpeg(DateTimeOriginal="2020:05:06 07:08:09", DateTime="2020:05:06 07:08:09")
    capture_time(data[:place] + noise + data[place + len(noise) :])
    capture_time(data[:place])
    capture_time(noise)
