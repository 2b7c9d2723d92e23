from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilvl.data import load_dataset
from distilvl.errors import DistilvlError

LISTS = {
    "dataset_album.json": json.dumps(
        {"images": [{"filename": "a.png", "split": "train", "sentences": [{"raw": "one"}]}]}
    ),
    "captions.jsonl": '{"image": "a.png", "caption": "one"}\n',
    "captions.csv": "image,caption\na.png,one\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_folder_and_file(folder: Path, name: str):
    (folder / name).write_text(LISTS[name])
    for source in (folder, str(folder), folder / name):
        dataset = load_dataset(source)
        assert [(record.image_id, record.captions) for record in dataset] == [("a.png", ("one",))]


def test_scenes():
    assert load_dataset("scenes").name == "scenes"


def test_skip_bad_reaches_the_reader(folder: Path):
    (folder / "captions.csv").write_text(LISTS["captions.csv"] + "gone.png,two\n")
    assert len(load_dataset(folder, skip_bad=True)) == 1


@pytest.mark.parametrize("source", ["flickr99k", "/nowhere/at/all"])
def test_unknown_source_lists_what_is_accepted(source: str):
    with pytest.raises(
        DistilvlError, match=r"no data set .*'scenes'.*dataset\*\.json.*captions\.jsonl.*captions\.csv"
    ) as e:
        load_dataset(source)
    assert repr(source) in str(e.value)


def test_folder_without_a_list(folder: Path):
    with pytest.raises(DistilvlError, match=r"holds no list of images. Accepted are"):
        load_dataset(folder)


def test_folder_with_two_lists(folder: Path):
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    with pytest.raises(DistilvlError, match=r"several lists: dataset_album.json, captions.jsonl, captions.csv"):
        load_dataset(folder)


def test_file_of_another_kind(folder: Path):
    with pytest.raises(DistilvlError, match=r"a\.png is not a data set: its name ends in '\.png'"):
        load_dataset(folder / "a.png")
