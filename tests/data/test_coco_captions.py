from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilvl.data.benchmarks import read_coco_captions
from distilvl.errors import BadImageError, DistilvlError


def content(*names: str, first: int = 10) -> dict[str, Any]:
    images = [{"id": first + k, "file_name": name} for k, name in enumerate(names)]
    annotations = [
        {"id": 100 * image["id"] + k, "image_id": image["id"], "caption": f"{image['file_name']} {k}"}
        for k in range(2)
        for image in images
    ]
    return {"images": images, "annotations": annotations}


def write(folder: Path, part: str, values: Any) -> Path:
    path = folder / "annotations" / f"captions_{part}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def paths(folder: Path) -> list[Path]:
    for part, name in (("train2017", "a.png"), ("val2017", "b.png")):
        (folder / part).mkdir()
        (folder / name).rename(folder / part / name)
    return [write(folder, "train2017", content("a.png")), write(folder, "val2017", content("b.png", first=20))]


def test_both_parts(paths: list[Path]) -> None:
    dataset = read_coco_captions(paths)
    assert (dataset.name, dataset.splits) == ("album", {"train": 1, "val": 1})
    assert dataset[0].captions == ("a.png 0", "a.png 1")
    assert dataset[0].caption_ids == ("1000", "1001")
    assert dataset[1].image.read() == (paths[1].parents[1] / "val2017" / "b.png").read_bytes()


def test_images_in_one_folder_and_a_missing_one(folder: Path) -> None:
    (folder / "sub").rename(folder / "images")
    path = write(folder, "mine", content("d.png", "gone.png"))
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
        read_coco_captions([write(folder, "train2014", content("a.png"))])
