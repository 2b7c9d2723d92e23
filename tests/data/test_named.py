from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distilvl.data import benchmarks as named
from distilvl.data import load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError


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
