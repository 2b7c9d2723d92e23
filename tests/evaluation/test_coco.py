from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from distilvl.data.records import PairDataset, Record
from distilvl.errors import DistilvlError
from distilvl.evaluation.protocols import CocoTruth, coco_ids, score_coco

IMAGES = {391895: [0, 10], 60623: [10, 0], 483108: [8, 6]}
CAPTIONS = {1: (391895, [0, 9]), 2: (391895, [2, 9]), 3: (60623, [9, 1]), 4: (60623, [4, 7]), 5: (483108, [7, 6])}


class Named:
    name = "x"

    def read(self) -> bytes:
        return b""


@pytest.fixture
def package(monkeypatch):
    """What the package offers, for three images."""
    plain = {"i2t": {i: [c for c, (own, _) in CAPTIONS.items() if own == i] for i in IMAGES},
             "t2i": {c: [own] for c, (own, _) in CAPTIONS.items()}}  # fmt: skip
    cxc = {"i2t": {**plain["i2t"], 391895: [1, 2, 4]}, "t2i": {**plain["t2i"], 4: [60623, 391895]}}
    eccv = {"i2t": {60623: [3, 4, 5, 5, 99]}, "t2i": {4: [60623, 483108], 5: [391895]}}
    metrics = SimpleNamespace(coco_gts=plain, cxc_gts=cxc, eccv_gts=eccv)
    monkeypatch.setitem(sys.modules, "eccv_caption", SimpleNamespace(Metrics=lambda: metrics))


def features(image_ids, caption_ids):
    """Features of these items, and a dataset of them; its last image has all captions but one an image."""
    images = np.array([IMAGES.get(i, [1, 1]) for i in image_ids], float)
    texts = np.array([CAPTIONS.get(c, (0, [3, 3]))[1] for c in caption_ids], float)
    shares = [[name] for name in map(str, caption_ids)]
    shares[len(image_ids) - 1 :] = [[str(name) for name in caption_ids[len(image_ids) - 1 :]]]
    records = [
        Record(f"{number}.jpg", Named(), ("a",) * len(own), "test", tuple(own))
        for number, own in zip(image_ids, shares, strict=True)
    ]
    return images, texts, PairDataset("coco", tuple(records))


def test_cxc_by_hand(package):
    """Angles: images 90, 0, 37 degrees; captions 90, 77, 6, 60, 41. Rows in any order; caption 7 is not COCO's."""
    found = score_coco(CocoTruth.load("cxc"), *features([483108, 60623, 391895], [5, 7, 4, 3, 2, 1])).as_dict()
    i2t, t2i = found["image_to_text"], found["text_to_image"]
    assert (i2t["queries"], t2i["queries"]) == (3, 5)
    # Image 391895 wants 1, 2, 4: places 1, 2, 3. 60623 wants 3, 4: places 1, 3. 483108 wants 5: place 1.
    assert i2t["r1"] == 100
    assert i2t["r_precision"] == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)
    assert i2t["map_at_r"] == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)
    # Caption 4 (60 degrees): images at 23, 30 and 60 away: its right ones are at places 2 and 3.
    assert t2i["r1"] == pytest.approx(80)
    assert t2i["r5"] == 100
    assert t2i["r_precision"] == pytest.approx(100 * (4 + 1 / 2) / 5)
    assert t2i["map_at_r"] == pytest.approx(100 * (4 + (1 / 2) / 2) / 5)


def test_eccv_counts_right_answers_that_the_gallery_lacks(package):
    found = score_coco(CocoTruth.load("eccv"), *features([391895, 60623, 483108], [1, 2, 3, 4, 5])).as_dict()
    # Four different captions wanted, 99 is unknown: 3, 5, 4 are at places 1, 2, 3.
    assert found["image_to_text"] == {"r1": 100, "r5": 100, "r10": 100, "r_precision": 75, "map_at_r": 75, "queries": 1}
    # Caption 4: 483108 first, 60623 third. Caption 5 (41 degrees): 391895 is last.
    assert found["text_to_image"]["r1"] == 50
    assert found["text_to_image"]["r_precision"] == found["text_to_image"]["map_at_r"] == 25


def test_ids_come_from_file_names_and_sentids():
    def dataset(image_id, caption_id):
        return PairDataset("coco", (Record(image_id, Named(), ("a",), "test", (caption_id,)),))

    images, captions = coco_ids(dataset("val2014/COCO_val2014_000000391895.jpg", "770337"))
    assert (images.tolist(), captions.tolist()) == ([391895], [770337])
    with pytest.raises(DistilvlError, match=r"'beach.jpg' is no COCO id"):
        coco_ids(dataset("beach.jpg", "1"))
    with pytest.raises(DistilvlError, match=r"'1.jpg#0' is no COCO id"):
        coco_ids(dataset("1.jpg", "1.jpg#0"))


def test_only_the_whole_split(package):
    with pytest.raises(DistilvlError, match="2 of the 3 images of COCO's test split"):
        score_coco(CocoTruth.load("cxc"), *features([391895, 60623], [1, 2, 3, 4, 5]))
    with pytest.raises(DistilvlError, match=r"5 of the 5 captions .* some several times \(6 rows\)"):
        score_coco(CocoTruth.load("cxc"), *features([391895, 60623, 483108], [1, 2, 3, 4, 5, 5]))


def test_names_and_the_missing_package(monkeypatch):
    with pytest.raises(DistilvlError, match=r"no ground truth 'coco'.*cxc, eccv"):
        CocoTruth.load("coco")
    monkeypatch.setitem(sys.modules, "eccv_caption", None)
    with pytest.raises(DistilvlError, match=r"ground truth cxc needs the package eccv_caption.*distilvl\[eccv\]"):
        CocoTruth.load("cxc")
