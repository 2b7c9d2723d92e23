from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilvl.data import UnpairedDataset, load_any, load_dataset
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


def test_folder_without_a_list_and_without_captions(folder: Path):
    with pytest.raises(DistilvlError, match=r"holds 4 images and no captions; names of folders are not captions"):
        load_dataset(folder)


def test_empty_folder(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"holds no list of images and no images. Accepted are"):
        load_dataset(tmp_path)


def test_folder_of_text_files(folder: Path):
    for name in ("a", "b", "c", "sub/d"):
        (folder / f"{name}.txt").write_text(f"picture {name}\n")
    assert [record.captions for record in load_dataset(folder)] == [
        (f"picture {name}",) for name in ("a", "b", "c", "sub/d")
    ]


def test_coco_layout(folder: Path):
    (folder / "annotations").mkdir()
    (folder / "sub").rename(folder / "val2017")
    content = {
        "images": [{"id": 7, "file_name": "d.png"}],
        "annotations": [{"id": 70, "image_id": 7, "caption": "one"}],
    }
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    assert load_dataset(folder).splits == {"val": 1}
    assert load_dataset(folder / "annotations" / "captions_val2017.json").name == "album"


def test_unpaired_is_loaded_but_is_no_dataset_of_pairs(folder: Path):
    (folder / "texts.txt").write_text("one\ntwo\n")
    source = f"unpaired:{folder},{folder / 'texts.txt'}"
    data = load_any(source)
    assert isinstance(data, UnpairedDataset)
    assert (len(data.images), data.texts) == (4, ("one", "two"))
    with pytest.raises(DistilvlError, match="images and texts without pairs"):
        load_dataset(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("unpaired:images", "does not name a folder and a file"),
        ("hf:", "names no place"),
        ("hf:owner/name?column=x", "option column=x.*config, revision, image, caption"),
        ("parquet:a.parquet?image=a&image=b", "'image' twice"),
    ],
)
def test_specs_that_are_none(source: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        load_dataset(source)


def test_folder_with_two_lists(folder: Path):
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    with pytest.raises(DistilvlError, match=r"several lists: dataset_album.json, captions.jsonl, captions.csv"):
        load_dataset(folder)


def test_file_of_another_kind(folder: Path):
    with pytest.raises(DistilvlError, match=r"a\.png is not a data set: its name ends in '\.png'"):
        load_dataset(folder / "a.png")
