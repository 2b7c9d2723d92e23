"""Reader of a folder of images, each with a text file of the same name: `a.jpg` and `a.txt`."""

from __future__ import annotations

from pathlib import Path

from distilvl.data.composition import on_disk
from distilvl.data.image_files import image_files
from distilvl.data.listing import dataset_of, usual_split
from distilvl.data.merging import Row, merge_rows
from distilvl.data.records import FileImage, PairDataset
from distilvl.data.text_files import read_text
from distilvl.errors import DistilvlError

_SPLITS = ("train", "val", "test")


def read_sidecars(folder: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """The dataset of an image folder whose captions stand in text files beside the images, one caption a line.

    Folders within are read too. If every image lies in a folder `train`, `val` (`validation`, `dev`) or `test` at
    the top, these are the splits; else the images are divided by a hash of their path (`split_of`). The names of
    other folders, such as classes, are no captions.

    Args:
        folder: of the images.
        skip_bad: leave out images whose file is missing (a link into nothing), instead of raising.

    Raises:
        BadImageError: a link into nothing, unless `skip_bad`.
        DistilvlError: no images, or images without a text file (names the first and their number) or with an empty
            one.
    """
    folder = Path(folder)
    names = image_files(folder)
    if not names:
        raise DistilvlError(f"the folder {folder} holds no images.", "Check the path.")
    texts = {name: on_disk((folder / name).with_suffix(".txt")) for name in names}
    bare = [name for name, text in texts.items() if not text.is_file()]
    if len(bare) == len(names):
        raise DistilvlError(
            f"the folder {folder} holds {len(names)} images and no captions; names of folders are not captions.",
            "Write a captions.jsonl or captions.csv, put a .txt beside each image, or train without pairs: "
            "unpaired:DIR,FILE.",
        )
    if bare:
        raise DistilvlError(
            f"{folder / bare[0]} has no text file ({len(bare)} of {len(names)} images have none).",
            "Put a .txt of the same name beside each image.",
        )
    splits = [_split(name) for name in names]
    known = None not in splits
    rows = (
        Row(str(texts[name]), name, FileImage(str(folder / name)), read_text(texts[name]).split("\n"), split)
        for name, split in zip(names, splits if known else [None] * len(names), strict=True)
    )
    return dataset_of(folder.resolve().name, merge_rows(rows, str(folder)), skip_bad=skip_bad)


def _split(name: str) -> str | None:
    split = usual_split(name.split("/")[0])
    return split if "/" in name and split in _SPLITS else None
