"""Images with class names: a folder for each class, or a CSV list."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from distilvl.data.columns import Choice
from distilvl.data.faults import BadItemError, Faults
from distilvl.data.image_files import scan_folder
from distilvl.data.listing import dataset_of, image_in
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.data.tables import read_table
from distilvl.errors import DistilvlError

_SPLIT = "test"


def read_labels(path: str | Path, *, skip_bad: bool = False) -> PairDataset:
    """Labelled images as a dataset in which the only caption of an image is the name of its class.

    What a scan of the folder passes over (`scan_folder`), and images beside the folders, is counted in `left_out`.

    Args:
        path: a folder that holds a folder of images for each class (underscores in its name are read as
            spaces), or a CSV with the columns `image` (a path relative to the CSV's folder) and `class`.
        skip_bad: leave out and count bad lines and missing files, instead of raising.

    Raises:
        DistilvlError: neither of them, a bad line (by its number), an image twice, missing files.
    """
    path = Path(path)
    faults = Faults(path.resolve().name, skip_bad=skip_bad)
    if path.is_dir():
        records = list(_of_folder(path, faults))
        remedy = "Put the images of each class into a folder of its own, named like the class."
    elif path.suffix.lower() == ".csv":
        records = list(_of_csv(path, faults))
        remedy = "Write a line an image below the header 'image,class'."
    else:
        raise DistilvlError(
            f"{path} is no list of labelled images.", "Give a folder with a folder for each class, or a CSV."
        )
    faults.check()
    if not records:
        passed_over = f"; left out: {'; '.join(faults.left_out.lines())}" if faults.left_out else ""
        raise DistilvlError(f"{path} holds no labelled images{passed_over}.", remedy)
    return dataset_of(faults.source, records, faults)


def _of_folder(root: Path, faults: Faults) -> Iterator[Record]:
    found = scan_folder(root, skip_bad=faults.skip_bad)
    faults.left_out.update(found.left_out)
    for name in sorted([*found.images, *found.dead]):
        folder, inside, _ = name.partition("/")
        if inside:
            yield Record(name, FileImage(str(root / name)), (folder.replace("_", " "),), _SPLIT)
        else:
            faults.left_out.add("no class: it lies beside the folders", name)


def _of_csv(path: Path, faults: Faults) -> Iterator[Record]:
    for where, _, values in read_table(path, Choice("image", ("class",)), faults):
        record = faults.attempt(functools.partial(_of_row, values, path.parent, where))
        if record is not None:
            yield record


def _of_row(row: Mapping[str, str], root: Path, where: str) -> Record:
    name = row["class"].strip()
    if not name:
        raise BadItemError(f"{where} has no class", "Give every image one.", name=where, reason="no class")
    return Record(str(row.get("image")), image_in(root, row.get("image"), where), (name,), _SPLIT)
