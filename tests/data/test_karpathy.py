from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilvl.data.benchmarks import read_karpathy
from distilvl.errors import BadImageError, DistilvlError


def entry(filename: str, number: int, split: str = "train", **more: Any) -> dict[str, Any]:
    sentences = [{"raw": f"caption {k} of {filename}", "sentid": 10 * number + k} for k in range(2)]
    ids = [sentence["sentid"] for sentence in sentences]
    return {
        "filename": filename,
        "split": split,
        "imgid": number,
        "sentids": ids,
        "sentences": sentences,
        **more,
    }


@pytest.fixture
def entries() -> list[dict[str, Any]]:
    return [
        entry("a.png", 0),
        entry("b.png", 1, "restval"),
        entry("c.png", 2, "val"),
        entry("d.png", 3, "test"),
    ]


def write(folder: Path, images: Any) -> Path:
    (folder / "d.png").write_bytes((folder / "sub" / "d.png").read_bytes())
    path = folder / "dataset_album.json"
    path.write_text(json.dumps({"dataset": "album", "images": images}))
    return path


def test_records(folder: Path, entries: list[dict[str, Any]]):
    dataset = read_karpathy(write(folder, entries))
    assert dataset.name == "album"
    assert dataset.splits == {"train": 2, "val": 1, "test": 1}
    assert [record.image_id for record in dataset] == ["a.png", "b.png", "c.png", "d.png"]
    assert dataset[1].captions == ("caption 0 of b.png", "caption 1 of b.png")
    assert dataset[1].caption_ids == ("10", "11")
    assert dataset[1].image.read() == (folder / "b.png").read_bytes()


def test_images_folder_beside_the_list_comes_first(folder: Path, entries: list[dict[str, Any]]):
    path = write(folder, entries[:1])
    (folder / "images").mkdir()
    (folder / "a.png").rename(folder / "images" / "a.png")
    assert read_karpathy(path)[0].image.name == str(folder / "images" / "a.png")


def test_filepath_is_part_of_the_id(folder: Path):
    dataset = read_karpathy(write(folder, [entry("d.png", 0, filepath="sub")]))
    assert dataset[0].image_id == "sub/d.png"
    assert dataset[0].image.read() == (folder / "sub" / "d.png").read_bytes()


def test_caption_ids_without_sentid(folder: Path):
    bare = entry("a.png", 0)
    bare["sentences"] = [{"raw": "one"}, {"raw": "two"}]
    assert read_karpathy(write(folder, [bare]))[0].caption_ids == ("0", "1")
    del bare["sentids"]
    assert read_karpathy(write(folder, [bare]))[0].caption_ids == ("a.png#0", "a.png#1")


def test_blank_captions_are_dropped_with_their_ids(folder: Path):
    blank = entry("a.png", 0)
    blank["sentences"][0]["raw"] = "  "
    record = read_karpathy(write(folder, [blank]))[0]
    assert (record.captions, record.caption_ids) == (("caption 1 of a.png",), ("1",))


def test_missing_files(folder: Path, entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture):
    path = write(folder, entries)
    (folder / "b.png").unlink()
    (folder / "c.png").unlink()
    with pytest.raises(BadImageError, match=r"b\.png is missing \(2 of 4 .*--skip-bad"):
        read_karpathy(path)
    dataset = read_karpathy(path, skip_bad=True)
    assert [record.image_id for record in dataset] == ["a.png", "d.png"]
    assert "left out 2 (the file is missing)" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filename": None}, r"images\[1\] lacks 'filename'"),
        ({"sentences": "a dog"}, r"images\[1\] lacks 'filename' or 'sentences'"),
        ({"sentences": [{"tokens": []}]}, r"images\[1\] \(b.png\) has a sentence without 'raw'"),
        ({"sentences": [{"raw": 3}]}, r"images\[1\] \(b.png\): the caption is 3"),
        ({"sentences": []}, "image 'b.png' in album has no captions"),
        ({"sentences": [{"raw": " "}]}, "image 'b.png' in album has no captions"),
        ({"split": None}, r"images\[1\] \(b.png\) has the split None"),
        ({"filename": "../b.png"}, r"images\[1\]: .*leaves the image folder"),
        ({"filepath": "/"}, "leaves the image folder"),
        ({"filename": "a.png"}, "duplicate image_id 'a.png'"),
        ({"sentences": [{"raw": "x", "sentid": 0}]}, "duplicate caption id '0'"),
    ],
)
def test_bad_entries(folder: Path, entries: list[dict[str, Any]], change: dict[str, Any], words: str):
    entries[1].update(change)
    with pytest.raises(DistilvlError, match=words):
        read_karpathy(write(folder, entries))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list 'images'"),
        ('{"images": 3}', "no list 'images'"),
        ('{"images": []}', "no images"),
    ],
)
def test_files_that_are_none(folder: Path, text: str, words: str):
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DistilvlError, match=words):
        read_karpathy(folder / "dataset.json")
