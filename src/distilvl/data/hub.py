"""Reader of Hugging Face datasets: by name, or a folder written by `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilvl.data.columns import NO_CHOICE, Choice, Row, column_types, find_columns, merge_rows, table_row
from distilvl.data.left_out import Faults
from distilvl.data.listing import dataset_of, usual_split
from distilvl.data.records import FileImage, PairDataset
from distilvl.errors import BadImageError, DistilvlError, one_line, require
from distilvl.pictures import BAD_IMAGE_REMEDY

_BATCH = 1000


def read_hub(
    name: str, *, config: str | None = None, revision: str | None = None, chosen: Choice = NO_CHOICE,
    split: str | None = None, skip_bad: bool = False,
) -> PairDataset:  # fmt: skip
    """The dataset that `datasets` finds under a name, downloaded by it if need be, or in a folder on disk.

    Columns are found by `find_columns`. Rows with the same `image_id` (`img_id`, `imgid`) are merged; without such
    a column an image is called `split/row`. Splits come from the column `split`, or are the dataset's own, with
    `validation` called `val`; a dataset whose only split is `train` is divided by a hash (`split_of`); or `split` is
    that of all rows. `revision` is a branch, tag or commit. No code of the dataset's repository is run. For `chosen`,
    `skip_bad` and errors see `listing`; rows count from 0.
    """
    parts, on_disk = _load(name, config, revision)
    folders = () if on_disk else _image_folders(name)
    faults = Faults(Path(name).name, skip_bad=skip_bad)
    own = {part: split or (part if set(parts) != {"train"} else None) for part in parts}
    rows = (row for part in parts for row in _rows(name, part, parts[part], chosen, own[part], folders, faults))
    return dataset_of(faults.source, merge_rows(rows, name, faults), faults)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote this folder."""
    several, *one = ((folder / f"{name}.json").is_file() for name in ("dataset_dict", "state", "dataset_info"))
    return several or all(one)


@dataclass(frozen=True, slots=True)
class HubImage:
    """An image in a column of a Hugging Face dataset; `name` is what error messages call it."""

    table: Any = field(repr=False, compare=False)
    column: str
    row: int
    name: str
    # Where a path in place of bytes may lead: `datasets` writes paths of its own cache and of a folder of images that
    # it was given; any other, and every one in a folder from disk, is somebody's tampering.
    folders: tuple[Path, ...]

    def read(self) -> bytes:
        """Bytes of the cell; `BadImageError` when there are none, or they are damaged."""
        arrow = require("pyarrow", extra="datasets")
        try:
            value = self.table[self.row][self.column]
        except (OSError, arrow.ArrowException, UnicodeDecodeError) as error:
            raise BadImageError(f"cannot read {self.name}: {one_line(error)}.", BAD_IMAGE_REMEDY) from error
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
        if data is None and isinstance(path, str):
            with suppress(OSError, ValueError, RuntimeError):  # no path at all, or links in a circle
                place = Path(path).resolve()
                if any(place.is_relative_to(folder) for folder in self.folders):
                    return FileImage(path).read()
        if not isinstance(data, bytes):
            raise BadImageError(f"{self.name} has no image.", BAD_IMAGE_REMEDY)
        return data


def _image_folders(name: str) -> tuple[Path, ...]:
    """The folders in which images of the dataset may lie beside its table: caches, and the folder itself."""
    config = require("datasets", extra="datasets").config
    hub = require("huggingface_hub.constants", extra="datasets").HF_HUB_CACHE
    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH, hub)
    named = (name,) if Path(name).is_dir() else ()
    return tuple(Path(folder).resolve() for folder in (*caches, *named))


def _load(name: str, config: str | None, revision: str | None) -> tuple[Mapping[str, Any], bool]:
    """Tables by split, and whether they come from `save_to_disk`."""
    datasets = require("datasets", extra="datasets")
    on_disk = is_saved_dataset(Path(name))
    try:
        found = datasets.load_from_disk(name) if on_disk else datasets.load_dataset(name, config, revision=revision)
    # RuntimeError: a repository with a script, which `datasets` no longer runs.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        remedy = "Check the name and the network; some need ?config=NAME or ?revision=refs/convert/parquet."
        raise DistilvlError(f"datasets cannot load {name!r}: {one_line(error)}.", remedy) from error
    return (found if isinstance(found, Mapping) else {"train": found}), on_disk


def _rows(
    name: str, part: str, table: Any, chosen: Choice, split: str | None, folders: tuple[Path, ...], faults: Faults
) -> Iterator[Row]:
    types = column_types(table.features.arrow_schema, "datasets")
    columns = find_columns(types, f"{name} ({part})", chosen, paths=False)
    pictures = table.select_columns([columns.image])
    if type(table.features[columns.image]).__name__ == "Image":
        pictures = pictures.cast_column(columns.image, require("datasets", extra="datasets").Image(decode=False))
    usual = None if split is None else usual_split(split)
    texts = table.select_columns(columns.texts).with_format("arrow")
    row = 0
    for batch in texts.iter(batch_size=_BATCH):
        try:
            batch.validate(full=True)  # or else text that is not UTF-8 is an error without a place
        except require("pyarrow", extra="datasets").ArrowInvalid as error:
            problem = f"cannot read {name}, {part} from row {row} on: {one_line(error)}."
            raise DistilvlError(problem, "Save its texts as UTF-8.") from error
        for values in batch.to_pylist():
            where = f"{name}, {part} row {row}"
            image = HubImage(pictures, columns.image, row, where, folders)
            with faults:
                yield table_row(where, f"{part}/{row}", image, values, columns, usual)
            row += 1
