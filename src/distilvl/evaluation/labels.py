"""Images with class names: a folder for each class, or a CSV list."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from distilvl.data.image_files import image_files
from distilvl.data.listing import dataset_of, image_in
from distilvl.data.records import PairDataset, Record
from distilvl.data.text_files import read_text
from distilvl.errors import DistilvlError

_SPLIT = "test"


def read_labels(path: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """Labelled images as a dataset in which the only caption of an image is the name of its class.

    Args:
        path: a folder that holds a folder of images for each class (underscores in its name are read as
            spaces), or a CSV with the columns `image` (a path relative to the CSV's folder) and `class`.
        skip_bad: leave out images whose file is missing, instead of raising.

    Raises:
        DistilvlError: neither of them, a bad line (by its number), an image twice, missing files.
    """
    path = Path(path)
    if path.is_dir():
        records = list(_of_folder(path))
        remedy = "Put the images of each class into a folder of its own, named like the class."
    elif path.suffix.lower() == ".csv":
        records = list(_of_csv(path))
        remedy = "Write a line an image below the header 'image,class'."
    else:
        raise DistilvlError(
            f"{path} is no list of labelled images.", "Give a folder with a folder for each class, or a CSV."
        )
    if not records:
        raise DistilvlError(f"{path} holds no labelled images.", remedy)
    return dataset_of(path.resolve().name, records, skip_bad=skip_bad)


def _of_folder(root: Path) -> Iterator[Record]:
    for name in image_files(root):
        folder, inside, _ = name.partition("/")
        if inside:  # images beside the folders have no class
            yield Record(name, image_in(root, name, str(root)), (folder.replace("_", " "),), _SPLIT)


def _of_csv(path: Path) -> Iterator[Record]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        if not {"image", "class"} <= set(reader.fieldnames or []):
            raise DistilvlError(
                f"{path} has the columns {', '.join(map(repr, reader.fieldnames or [])) or 'none'}.",
                "Its first line must name the columns 'image' and 'class'.",
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name = (row["class"] or "").strip()
            if not name:
                raise DistilvlError(f"{where} has no class.", "Give every image one.")
            yield Record(str(row["image"]), image_in(path.parent, row["image"], where), (name,), _SPLIT)
    except csv.Error as error:
        raise DistilvlError(f"{path}, line {reader.line_num}: {error}.", "Check the quotes there.") from error
