from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilvl.data import benchmarks as named
from distilvl.data import load_dataset
from distilvl.data.benchmarks import read_coco_captions, read_karpathy
from distilvl.data.left_out import LeftOut
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError, DistilvlError


@pytest.fixture
def flickr(folder: Path) -> Path:
    """`flickr30k/` as people have it: the JSON beside `flickr30k-images/`."""
    root = folder.parent / "flickr30k"
    root.mkdir()
    folder.rename(root / "flickr30k-images")
    images = [
        {"filename": f"{name}.png", "split": split, "sentences": [{"raw": "one"}]}
        for name, split in (("a", "train"), ("b", "val"), ("c", "test"))
    ]
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return root


def test_folder_by_place_and_by_variable(
    flickr: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset(f"flickr30k:{flickr}")
    assert (dataset.name, dataset.splits) == ("flickr30k", {"train": 1, "val": 1, "test": 1})
    assert dataset[0].image.name == str(flickr / "flickr30k-images" / "a.png")
    assert (
        "flickr30k has 1 train / 1 val / 1 test images; the usual splits have 29,000 train / 1,014 val" in caplog.text
    )
    monkeypatch.setenv(named.DATA_VARIABLE, str(flickr.parent))
    assert len(load_dataset("flickr30k")) == 3


def test_nothing_there_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(named.DATA_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DistilvlError,
        match=r"no coco in coco .*dataset_coco\.json and COCO's train2014/ .*coco:/folder.*DISTILVL_DATA.*coco:hub",
    ):
        load_dataset("coco")
    with pytest.raises(DistilvlError, match="no copy of flickr8k on the hub"):
        load_dataset("flickr8k:hub")


def test_copies_on_the_hub_are_put_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []

    def read(name: str, **options: Any) -> PairDataset:
        asked.append((name, options["split"]))
        assert options["skip_bad"]
        record = Record(name, FileImage(str(folder / "a.png")), ("one",), options["split"])
        left_out = LeftOut()
        left_out.add("no caption", name)
        return PairDataset(name, (record,), left_out)

    monkeypatch.setattr(named, "read_hub", read)
    dataset = load_dataset("coco:hub", skip_bad=True)
    assert dataset.splits == {"train": 1, "val": 1, "test": 1}
    assert dataset.left_out.counts == {"no caption": 3}
    assert [split for _, split in asked] == ["train", "val", "test"]


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


def content(*names: str, first: int = 10) -> dict[str, Any]:
    images = [{"id": first + k, "file_name": name} for k, name in enumerate(names)]
    annotations = [
        {"id": 100 * image["id"] + k, "image_id": image["id"], "caption": f"{image['file_name']} {k}"}
        for k in range(2)
        for image in images
    ]
    return {"images": images, "annotations": annotations}


def write_coco(folder: Path, part: str, values: Any) -> Path:
    path = folder / "annotations" / f"captions_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def paths(folder: Path) -> list[Path]:
    for part, name in (("train2017", "a.png"), ("val2017", "b.png")):
        (folder / part).mkdir()
        (folder / name).rename(folder / part / name)
    return [
        write_coco(folder, "train2017", content("a.png")),
        write_coco(folder, "val2017", content("b.png", first=20)),
    ]


def test_both_parts(paths: list[Path]) -> None:
    dataset = read_coco_captions(paths)
    assert (dataset.name, dataset.splits) == ("album", {"train": 1, "val": 1})
    assert dataset[0].captions == ("a.png 0", "a.png 1")
    assert dataset[0].caption_ids == ("1000", "1001")
    assert dataset[1].image.read() == (paths[1].parents[1] / "val2017" / "b.png").read_bytes()


def test_images_in_one_folder_and_a_missing_one(folder: Path) -> None:
    (folder / "sub").rename(folder / "images")
    path = write_coco(folder, "mine", content("d.png", "gone.png"))
    with pytest.raises(BadImageError, match=r"gone\.png is missing"):
        read_coco_captions([path])
    dataset = read_coco_captions([path], skip_bad=True)
    assert (dataset.splits, len(dataset.left_out)) == ({"train": 1}, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "no list of objects 'images'"),
        ({"images": [3], "annotations": []}, "no list of objects 'images'"),
        ({"images": []}, "no list of objects 'annotations'"),
        ({**content("a.png"), "images": []}, "captions of image 10, which it does not list"),
        ({"images": [{"file_name": "a.png"}], "annotations": []}, r"images\[0\] has no 'id'"),
        ({"images": [{"id": 1, "file_name": "../a.png"}], "annotations": []}, "leaves the image folder"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}, "has no captions"),
        (
            {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": 3}]},
            r"annotations\[0\]: the caption is 3",
        ),
    ],
)
def test_bad_files(paths: list[Path], values: Any, words: str) -> None:
    paths[0].write_text(json.dumps(values))
    with pytest.raises(DistilvlError, match=words):
        read_coco_captions(paths[:1])


def test_no_image_folder_says_where_it_looked(folder: Path) -> None:
    with pytest.raises(DistilvlError, match=r"no folder .*album/train2014, .*images/train2014"):
        read_coco_captions([write_coco(folder, "train2014", content("a.png"))])
