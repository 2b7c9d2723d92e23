"""Names with accents: composed or taken apart, they mean the same file."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.listing import (
    clean_caption,
    image_in,
    on_disk,
    path_in,
    spellings,
    split_in_name,
    split_of,
    usual_split,
)
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


def test_absolute_paths_in_the_folder_or_one_that_was_named(tmp_path: Path):
    root, other = tmp_path / "list", tmp_path / "photos"
    for folder in (root, other):
        folder.mkdir()
    (tmp_path / "link").symlink_to(root)
    inside = str(root / "sub" / "a.png")
    assert image_in(root, inside, "here").name == inside
    assert image_in(tmp_path / "link", inside, "here").name == inside
    assert path_in(root, inside) == path_in(tmp_path / "link", inside) == "sub/a.png"
    assert image_in(root, str(other / "a.png"), "here", [other]).name == str(other / "a.png")
    with pytest.raises(DistilvlError, match=rf"leaves the image folder .*\?root={re.escape(str(other))}\."):
        image_in(root, str(other / "a.png"), "here")
    for name in (f"{other}/../list/../../a.png", f"{tmp_path}/photos2/a.png", f"{other}/../x.png"):
        with pytest.raises(DistilvlError, match="leaves the image folder"):
            image_in(root, name, "here", [other])
    assert path_in(root, "sub/./a.png") == "sub/./a.png"
    assert path_in(root, str(other / "a.png")) == str(other / "a.png")


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


_NFC, _NFD = (unicodedata.normalize(form, "Café/été à Zürich") for form in ("NFC", "NFD"))


def test_all_spellings_of_a_path() -> None:
    found = spellings(f"/a/{_NFC}/b")
    assert found[0] == f"/a/{_NFC}/b"
    assert len(found) == 4
    assert f"/a/{_NFD}/b" in found
    assert set(spellings(f"/a/{_NFD}/b")) == set(found)
    assert spellings("/plain/name") == ["/plain/name"]
    assert len(spellings("/".join(["é"] * 40))) == 2


@pytest.mark.parametrize(("written", "stored"), [(_NFC, _NFD), (_NFD, _NFC), (_NFC, _NFC)])
def test_a_path_as_the_disk_has_it(tmp_path: Path, written: str, stored: str) -> None:
    (tmp_path / stored).mkdir(parents=True)
    assert on_disk(tmp_path / written) == tmp_path / stored
    assert on_disk(tmp_path / "é") == tmp_path / "é"
    (tmp_path / written).mkdir(parents=True, exist_ok=True)
    assert on_disk(tmp_path / written) == tmp_path / written  # both are there: the one that is meant


@pytest.mark.parametrize(("written", "stored"), [(_NFC, _NFD), (_NFD, _NFC)])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_list_names_its_files_in_either_spelling(tmp_path: Path, kind: str, written: str, stored: str) -> None:
    (tmp_path / stored).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / stored / "a.png")
    name = f"{written}/a.png"
    line = json.dumps({"image": name, "caption": "é"}) if kind == "jsonl" else f"image,caption\n{name},é"
    (tmp_path / f"captions.{kind}").write_text(line + "\n", encoding="utf-8")
    [record] = load_dataset(tmp_path / f"captions.{kind}")
    assert record.image_id == name
    assert record.image.read() == (tmp_path / stored / "a.png").read_bytes()


@pytest.mark.parametrize(("picture", "text"), [(_NFC, _NFD), (_NFD, _NFC)])
def test_a_text_beside_a_picture_is_found_in_either_spelling(tmp_path: Path, picture: str, text: str) -> None:
    for name in (picture, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / f"{picture}.png")
    (tmp_path / f"{text}.txt").write_text("a caption", encoding="utf-8")
    [record] = load_dataset(tmp_path)
    assert record.captions == ("a caption",)
