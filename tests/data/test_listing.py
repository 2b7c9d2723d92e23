from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.listing import clean_caption, image_in, split_in_name, split_of, usual_split
from distilvl.errors import DistilvlError


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "sub/../../a.png",
        "/etc/passwd",
        "C:\\a.png",
        "C:a.png",
        "..\\a.png",
        "\\\\host\\share\\a.png",
    ],
)
def test_paths_that_leave_the_folder(name: str):
    with pytest.raises(DistilvlError, match="leaves the image folder") as caught:
        image_in(Path("root"), name, "list.csv, line 3")
    assert str(caught.value).startswith("list.csv, line 3")


@pytest.mark.parametrize("name", [None, "", "  ", 3, "a\0b", ["a.png"]])
def test_names_that_are_none(name: object):
    with pytest.raises(DistilvlError, match="not a file name"):
        image_in(Path("root"), name, "here")


def test_inner_paths():
    assert image_in(Path("root"), "sub/a..b.png", "here").path == Path("root/sub/a..b.png")


@pytest.mark.parametrize("caption", [None, 3, ["a"], {"raw": "a"}])
def test_caption_that_is_no_string(caption: object):
    with pytest.raises(DistilvlError, match=r"here: the caption is .*, not a string"):
        clean_caption(caption, "here")


def test_caption_that_is_no_unicode():
    with pytest.raises(DistilvlError, match="not valid Unicode"):
        clean_caption("half \ud800", "here")


def test_hash_split():
    splits = [split_of(f"{k}.jpg") for k in range(5000)]
    shares = {name: splits.count(name) / 5000 for name in ("train", "val", "test")}
    assert abs(shares["train"] - 0.8) < 0.02
    assert abs(shares["val"] - 0.1) < 0.015
    # These may never change: a new version must not move images from train to test.
    assert split_of("a.jpg") == "train"
    assert split_of("3.jpg") == "val"
    assert split_of("13.jpg") == "test"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_cleaning_changes_control_characters_only(text: str):
    cleaned = clean_caption(text, "here")
    kept = "\t\n\r\x85"
    expected = [" " if unicodedata.category(c) == "Cc" and c not in kept else c for c in text]
    assert list(cleaned) == expected
    assert clean_caption(cleaned, "here") == cleaned


def test_usual_splits():
    assert [usual_split(name) for name in ("restval", "validation", "dev", "test", "mine")] == [
        *("train", "val", "val", "test", "mine"),
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2017.json", "train"),
        ("validation-00000-of-00002.parquet", "val"),
        ("test.parquet", "test"),
        ("photos.parquet", None),
        ("train_or_test.parquet", None),
        ("trainstation.parquet", None),
    ],
)
def test_split_in_a_file_name(name: str, split: str | None):
    assert split_in_name(Path(name)) == split
