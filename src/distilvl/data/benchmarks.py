"""The benchmarks of image-text retrieval by their names, with the splits that everybody reports on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distilvl.data.annotations import read_karpathy
from distilvl.data.columns import Choice
from distilvl.data.hub import read_hub
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PAIRS, PairDataset, Record
from distilvl.errors import DistilvlError

DATA_VARIABLE = "DISTILVL_DATA"
"""Environment variable: the folder that holds `flickr30k/` and `coco/`."""

_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class HubCopy:
    """A copy of a benchmark, or of one split of it, on the Hugging Face hub."""

    name: str
    revision: str | None = None
    captions: tuple[str, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """What is known of a benchmark.

    Attributes:
        splits: images of each split of Karpathy and Fei-Fei (CVPR 2015), COCO's `restval` counted as `train`.
        lists: names of the split file, the first one that is there counts.
        image_folders: names of the folder of photographs, likewise.
        layout: what belongs into the folder, for a message.
        hub: copies that together are the benchmark; none if nobody keeps one.
    """

    splits: Mapping[str, int]
    lists: tuple[str, ...]
    image_folders: tuple[str, ...]
    layout: str
    hub: tuple[HubCopy, ...] = ()


BENCHMARKS: Mapping[str, Benchmark] = {
    "flickr8k": Benchmark(
        {"train": 6000, "val": 1000, "test": 1000},
        ("dataset_flickr8k.json", "dataset.json"),
        ("images", "Flicker8k_Dataset", "Flickr8k_Dataset", "Images"),
        "Karpathy's dataset_flickr8k.json and the photographs in images/",
    ),
    "flickr30k": Benchmark(
        {"train": 29000, "val": 1014, "test": 1000},
        ("dataset_flickr30k.json", "dataset.json"),
        ("images", "flickr30k-images", "flickr30k_images"),
        "Karpathy's dataset_flickr30k.json and the photographs in images/ or flickr30k-images/",
        (HubCopy("nlphuji/flickr30k", revision="refs/convert/parquet"),),
    ),
    "coco": Benchmark(
        {"train": 113287, "val": 5000, "test": 5000},
        ("dataset_coco.json", "dataset.json"),
        ("images",),
        "Karpathy's dataset_coco.json and COCO's train2014/ and val2014/, there or in images/",
        tuple(
            HubCopy(f"Multimodal-Fatima/COCO_captions_{part}", captions=("sentences_raw",), split=split)
            for part, split in (("train", "train"), ("validation", "val"), ("test", "test"))
        ),
    ),
}


def read_named(name: str, place: str = "", *, skip_bad: bool = False) -> PairDataset:
    """A benchmark with its usual splits.

    Args:
        name: a key of `BENCHMARKS`.
        place: its folder; `hub` to download it; empty for `$DISTILVL_DATA/<name>`, or `<name>` here. It is never
            downloaded unless asked for.
        skip_bad: leave out and count bad entries and images, instead of raising.

    Raises:
        DistilvlError: nothing there, with what to put where; or what `read_karpathy` and `read_hub` raise.
    """
    benchmark = BENCHMARKS[name]
    if place == "hub":
        dataset = _from_hub(name, benchmark, skip_bad=skip_bad)
    else:
        dataset = _from_folder(name, benchmark, _folder(name, place), skip_bad=skip_bad)
    if dataset.splits != benchmark.splits:
        _logger.warning(
            "%s has %s images; the usual splits have %s.", name, _counts(dataset.splits), _counts(benchmark.splits)
        )
    return dataset


def _folder(name: str, place: str) -> Path:
    if place:
        return Path(place).expanduser()
    shared = os.environ.get(DATA_VARIABLE)
    return Path(shared).expanduser() / name if shared else Path(name)


def _from_folder(name: str, benchmark: Benchmark, folder: Path, *, skip_bad: bool) -> PairDataset:
    for file in benchmark.lists:
        if (folder / file).is_file():
            found = read_karpathy(folder / file, skip_bad=skip_bad, image_folders=benchmark.image_folders)
            return replace(found, name=name)
    hub = f", or let {name}:hub download it" if benchmark.hub else ""
    raise DistilvlError(
        f"there is no {name} in {folder} (no {' or '.join(benchmark.lists)}).",
        f"Its folder holds {benchmark.layout}. Give that folder as {name}:/folder, or set {DATA_VARIABLE} to the "
        f"folder around {name}/{hub}.",
    )


def _from_hub(name: str, benchmark: Benchmark, *, skip_bad: bool) -> PairDataset:
    if not benchmark.hub:
        raise DistilvlError(f"no copy of {name} on the hub is known.", "Use hf:OWNER/NAME if you know one.")
    records: list[Record] = []
    left_out = LeftOut()
    for copy in benchmark.hub:
        chosen = Choice(captions=copy.captions)
        part = read_hub(copy.name, revision=copy.revision, chosen=chosen, split=copy.split, skip_bad=skip_bad)
        records += part.records
        left_out.update(part.left_out)
    return PairDataset(name, tuple(records), left_out, PAIRS)


def _counts(splits: Mapping[str, int]) -> str:
    return " / ".join(f"{count:,} {split}" for split, count in splits.items())
