"""Names with accents: composed or taken apart, they mean the same file."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.listing import on_disk, spellings

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
