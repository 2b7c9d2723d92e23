from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.data import load_any, load_dataset
from distilvl.data.duplicates import Picture, near_groups
from distilvl.data.inspection import Copy, Overlap, as_dict, as_text, inspect_dataset
from distilvl.errors import DistilvlError


def picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Six pictures: 0 and 1 the same file, 2 a small JPEG of 0, 3 and 4 others, 5 cut off, 6 missing."""
    for k, seed in enumerate((0, 0, 0, 3, 4)):
        picture(seed).save(tmp_path / f"{k}.png")
    picture(0).resize((80, 60)).save(tmp_path / "2.png", "JPEG")
    (tmp_path / "5.png").write_bytes((tmp_path / "4.png").read_bytes()[:500])
    splits = ("train", "val", "test", "train", "train", "val", "val")
    lines = [
        {"image": f"{k}.png", "captions": ["a caption of five words"] * (k % 2 + 1), "split": split}
        for k, split in enumerate(splits)
    ]
    lines[4]["captions"] = [" ".join(["long"] * 90)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_findings(album: Path) -> None:
    found = inspect_dataset(load_dataset(album, skip_bad=True))
    assert found.images == {"train": 3, "val": 2, "test": 1}
    assert found.captions == {"train": 4, "val": 4, "test": 1}
    assert found.images_by_captions == {1: 3, 2: 3}
    assert found.captions_per_image is not None
    assert (found.captions_per_image.mean, found.captions_per_image.max) == (1.5, 2)
    assert found.captions_by_words == {"1-5": 8, "6-10": 0, "11-20": 0, "21-40": 0, "41-80": 0, "over 80": 1}
    assert found.sizes == {"160 x 120": 4, "80 x 60": 1}
    assert found.formats == {"PNG": 4, "JPEG": 1}
    assert [(Path(bad.name).name, bad.split) for bad in found.bad] == [("6.png", ""), ("5.png", "val")]
    assert "missing" in found.bad[0].reason
    assert found.exact == ((Copy("0.png", "train"), Copy("1.png", "val")),)
    assert found.near == ((Copy("0.png", "train"), Copy("2.png", "test")),)
    assert found.overlaps == (
        Overlap(("train", "val"), 1, 0),
        Overlap(("train", "test"), 0, 1),
        Overlap(("val", "test"), 0, 1),
    )


def test_text_and_json_of_the_command(album: Path) -> None:
    done = CliRunner().invoke(app, ["data", "inspect", str(album), "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    expected = as_dict(inspect_dataset(load_dataset(album, skip_bad=True)))
    assert values == json.loads(json.dumps(expected))
    done = CliRunner().invoke(app, ["data", "inspect", str(album)])
    for words in (
        "6 images, 9 captions",
        "bad files: 2",
        "exact duplicates: 1 groups, 2 images",
        "  0.png (train), 1.png (val)",
        "  of val, 1 images are in train too, and 0 more nearly so",
    ):
        assert words in done.stdout


def test_unpaired(album: Path) -> None:
    (album / "texts.txt").write_text("one\ntwo words\n")
    found = inspect_dataset(load_any(f"unpaired:{album},{album / 'texts.txt'}"))
    assert (found.images, found.captions) == ({"unpaired": 6}, {"unpaired": 2})
    assert (found.captions_per_image, len(found.bad), len(found.exact)) == (None, 1, 1)
    assert "captions an image" not in as_text(found)


def test_nothing_decodable_is_a_finding_too(album: Path) -> None:
    for k in range(6):
        (album / f"{k}.png").write_bytes(b"")
    found = inspect_dataset(load_dataset(album, skip_bad=True))
    assert (len(found.bad), found.width, found.exact, found.near, found.overlaps) == (7, None, (), (), ())
    assert "0.png is empty (0 bytes)" in as_text(found)


def test_long_lists_are_cut_in_the_text(tmp_path: Path) -> None:
    lines = []
    for k in range(14):
        (tmp_path / f"{k}.png").write_bytes(b"")
        lines.append(json.dumps({"image": f"{k}.png", "caption": "x", "split": "train"}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    assert "... and 4 more (--json has all)" in as_text(inspect_dataset(load_dataset(tmp_path)))


def test_bits_out_of_range(album: Path) -> None:
    with pytest.raises(DistilvlError, match="Choose 0 to 15"):
        inspect_dataset(load_dataset(album, skip_bad=True), near_bits=16)


def seen(key: bytes, bits: int, colour: int) -> Picture:
    return Picture(key, (9, 9), "PNG", bits, np.full((8, 8, 3), colour, dtype=np.uint8))


def test_near_groups_connect_chains_and_keep_colours_apart() -> None:
    hashes = [0b0, 0b11, 0b1111, 2**40 - 1, 0b0, 0b0]
    colours = [0, 0, 0, 0, 200, 0]  # row 4 has the same hash as row 0, another colour
    keys = [b"a", b"b", b"c", b"d", b"e", b"a"]  # row 5 is the file of row 0
    pictures = [seen(*of) for of in zip(keys, hashes, colours, strict=True)]
    assert near_groups(pictures, 2) == [[0, 1, 2]]
    assert near_groups(pictures, 1) == []


def test_many_pictures_of_one_look_are_one_group() -> None:
    """20,000 blank pages with different files: comparing all with all would take 200 million comparisons."""
    groups = near_groups([seen(b"%d" % k, 2**63, 255) for k in range(20_000)], 8)
    assert groups == [list(range(20_000))]


def test_what_the_reader_left_out_is_listed_by_reason(tmp_path: Path) -> None:
    for k in range(12):
        picture(k).save(tmp_path / f"{k}.png")
        (tmp_path / f"{k}.txt").write_text("" if k == 4 else "one")
        (tmp_path / f"{k}.CR2").write_bytes(b"x")
    (tmp_path / "5.png").write_bytes(b"x")
    done = CliRunner().invoke(app, ["data", "inspect", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "11 images, 11 captions" in done.stdout
    assert "bad files: 1\n" in done.stdout
    assert "left out by the reader: 13\n  12 (RAW (.cr2), which is not read): 0.CR2, 1.CR2, 10.CR2" in done.stdout
    assert f"\n  1 (no caption): {tmp_path / '4.png'}\n" in done.stdout
    values = json.loads(CliRunner().invoke(app, ["data", "inspect", str(tmp_path), "--json"]).stdout)["left_out"]
    assert values["total"] == 13
    assert len(values["reasons"]["RAW (.cr2), which is not read"]["names"]) == 12


def test_captions_that_several_images_have(tmp_path: Path) -> None:
    """Twice on one image is no other image; spelling and spaces do not matter; long ones are cut in the text."""
    long = "a very " + "very " * 30 + "long caption"
    captions = [["untitled", "untitled", "a cat"], [" Untitled "], ["a dog", long], ["A  DOG", long], ["a bird"]]
    splits = ["train", "val", "train", "train", "test"]
    lines = []
    for k, (of_image, split) in enumerate(zip(captions, splits, strict=True)):
        picture(k).save(tmp_path / f"{k}.png")
        lines.append({"image": f"{k}.png", "captions": of_image, "split": split})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = inspect_dataset(load_dataset(tmp_path))
    held = [(one.caption, [copy.image_id for copy in one.images]) for one in found.shared_captions]
    assert held == [("untitled", ["0.png", "1.png"]), ("a dog", ["2.png", "3.png"]), (long, ["2.png", "3.png"])]
    text = as_text(found)
    assert "captions that several images have, word by word: 3 captions, 4 images\n" in text
    assert '  "untitled": 0.png (train), 1.png (val)\n' in text
    assert f'  "{long[:59]}…": 2.png (train), 3.png (train)\n' in text
    first = json.loads(CliRunner().invoke(app, ["data", "inspect", str(tmp_path), "--json"]).stdout)
    assert first["shared_captions"][0]["images"][1] == {"image_id": "1.png", "split": "val"}


def test_captions_that_all_differ_and_those_without_pairs(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image": "0.png", "captions": ["one", "two"]}))
    assert "word by word: none" in as_text(inspect_dataset(load_dataset(tmp_path)))
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    assert inspect_dataset(load_any(f"unpaired:{tmp_path},{tmp_path / 'lines.txt'}")).shared_captions == ()
