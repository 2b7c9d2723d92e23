"""Readers of Arrow tables: Parquet files, and Hugging Face datasets by name or as a folder written by `save_to_disk`.

Parquet is not read by `datasets`, which copies a table into its cache first, and takes seconds to import.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from distilvl.data.columns import NO_CHOICE, Choice, Row, column_types, find_columns, merge_rows, table_row
from distilvl.data.left_out import BadItemError, Faults
from distilvl.data.listing import dataset_of, depth_in_common, image_in, path_in, split_in_path, usual_split
from distilvl.data.records import FileImage, ImageSource, PairDataset
from distilvl.data.remote import AnyPath, RemotePath, RemoteReadError, is_remote, remote_files
from distilvl.errors import BadImageError, DistilvlError, one_line, require
from distilvl.io.hub import look_for_hub
from distilvl.pictures import BAD_IMAGE_REMEDY

_BATCH = 1000
_GROUPS_HELD = 2  # two threads decode side by side, so that at a border both groups are in use


def read_parquet(
    path: str | Path, *, chosen: Choice = NO_CHOICE, roots: Sequence[Path] = (), skip_bad: bool = False
) -> PairDataset:
    """The dataset of a Parquet file, or of all `*.parquet` in a folder and in its folder `data/`.

    The image column (`find_columns`) holds encoded images (bytes, or Hugging Face's struct with `bytes`), or paths
    relative to the file's folder. Rows with the same `image_id` (`img_id`, `imgid`), or the same path, are merged; an
    image without either is called `file/row`. Splits come from the column `split`, or from the files' names
    (`train-00000-of-00004.parquet`), or else from a hash (`split_of`). A row group has to fit into memory. In an
    address `*` and `[0-9]` may stand for several files, and the images have to be in the file. For `chosen`, `roots`,
    `skip_bad` and errors see `listing`; rows count from 0.
    """
    files: Sequence[AnyPath]
    if isinstance(path, str) and is_remote(path):
        place = path.rstrip("/")
        name, files = PurePosixPath(place).stem, remote_files(place, ".parquet", ("*", "data/*"))
    elif Path(path).is_dir():
        name, files = Path(path).resolve().name, parquet_files(Path(path))
    else:
        name, files = Path(path).stem, [Path(path)]
    if not files:
        raise DistilvlError(f"the folder {path} holds no *.parquet.", "Check the path.")
    groups, faults = RowGroups(), Faults(name, skip_bad=skip_bad)
    depth = depth_in_common(file.parent.parts for file in files)
    rows = (row for file in files for row in _rows(file, depth, groups, chosen, tuple(roots), faults))
    return dataset_of(name, merge_rows(rows, str(path), faults), faults)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder and of its folder `data/`; not hidden ones, such as macOS puts beside others."""
    found = [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]
    return sorted(path for path in found if not path.name.startswith("."))


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has columns of images and captions, rather than addresses alone."""
    with _as_parquet(path) as file:
        types = column_types(file.schema_arrow, "parquet")
    try:
        find_columns(types, str(path), paths=True)
    except DistilvlError:
        return "bytes" in types.values()
    return True


@contextmanager
def _as_parquet(path: AnyPath) -> Iterator[Any]:
    """The file, opened; what pyarrow says of one that is none is the one error that names it."""
    try:
        with _opened(path) as file:
            yield file
    except (OSError, require("pyarrow", extra="parquet").ArrowException) as error:
        problem = f"cannot read {path} as Parquet: {one_line(error)}."
        raise DistilvlError(problem, "Check that the file is complete, and its texts are UTF-8.") from error


@contextmanager
def _opened(path: AnyPath) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", extra="parquet")
    opened: Any = path.open("rb") if isinstance(path, RemotePath) else nullcontext(path)
    with opened as source, parquet.ParquetFile(source) as file:
        yield file


class RowGroups:
    """Image cells of Parquet files; the row groups read last are kept, since neighbours are mostly read together."""

    def __init__(self) -> None:
        self._held: dict[tuple[AnyPath, str, int], Any] = {}
        self._lock = threading.Lock()

    def cell(self, path: AnyPath, column: str, group: int, row: int) -> Any:
        """The value at `row` of a row group."""
        key = (path, column, group)
        with self._lock:
            cells = self._held.pop(key, None)
            if cells is None:
                while len(self._held) >= _GROUPS_HELD:
                    self._held.pop(next(iter(self._held)))
                with _opened(path) as file:
                    cells = file.read_row_group(group, columns=[column]).column(0)
            self._held[key] = cells
        return cells[row].as_py()


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a cell of a Parquet file (by its row in a row group), or beside it where that has only a path."""

    path: AnyPath
    column: str
    group: int
    row: int
    name: str
    groups: RowGroups = field(repr=False, compare=False)
    roots: tuple[Path, ...] = ()

    def read(self) -> bytes:
        """Bytes of the cell; `BadImageError` when it is empty or damaged, or the file cannot be read."""
        arrow = require("pyarrow", extra="parquet")
        try:
            value = self.groups.cell(self.path, self.column, self.group, self.row)
        except RemoteReadError as error:
            raise RemoteReadError(f"{self.name}: {error}") from error
        # IndexError: a page with fewer rows than the file says.
        except (OSError, arrow.ArrowException, UnicodeDecodeError, IndexError) as error:
            raise BadImageError(f"cannot read {self.name}: {one_line(error)}.", BAD_IMAGE_REMEDY) from error
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if data is None and isinstance(path, str) and isinstance(self.path, Path):
            root = self.roots[0] if self.roots else self.path.parent
            try:
                return image_in(root, path, self.name, self.roots).read()
            except BadItemError as error:
                raise BadImageError(str(error)) from error
        if not isinstance(data, bytes):
            raise BadImageError(f"{self.name} has no image.", BAD_IMAGE_REMEDY)
        return data


def _rows(
    path: AnyPath, depth: int, groups: RowGroups, chosen: Choice, roots: tuple[Path, ...], faults: Faults
) -> Iterator[Row]:
    """The rows of one file, named from the folder that is `depth` parts deep."""
    below = path.parent.parts[depth:]
    folder, split = "".join(f"{part}/" for part in below), split_in_path(path.name, below[-1] if below else "")
    root = roots[0] if roots else path.parent
    with _as_parquet(path) as file:
        types = column_types(file.schema_arrow, "parquet")
        columns = find_columns(types, str(path), chosen, paths=isinstance(path, Path))
        in_file, before = types[columns.image] == "bytes", 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns.texts if in_file else [*columns.texts, columns.image])
            table.validate(full=True)  # or else text that is not UTF-8 is an error without a place
            for row, values in enumerate(table.to_pylist()):
                where = f"{path}, row {before + row}"
                with faults:
                    if in_file or not isinstance(root, Path):
                        image: ImageSource = ParquetImage(path, columns.image, group, row, where, groups, roots)
                        key = f"{folder}{PurePosixPath(path.name).stem}/{before + row}"
                    else:
                        value = values[columns.image]
                        name = value.get("path") if isinstance(value, dict) else value
                        image = image_in(root, name, where, roots)
                        key = path_in(root, str(name)) if roots else f"{folder}{path_in(root, str(name))}"
                    yield table_row(where, key, image, values, columns, split)
            before += table.num_rows


def read_hub(
    name: str, *, config: str | None = None, revision: str | None = None, chosen: Choice = NO_CHOICE,
    split: str | None = None, skip_bad: bool = False,
) -> PairDataset:  # fmt: skip
    """The dataset that `datasets` finds under a name, downloaded by it if need be, or in a folder on disk.

    Rows with the same `image_id` (`img_id`, `imgid`) are merged; without such a column an image is called `split/row`.
    Splits come from the column `split`, or are the dataset's own; one whose only split is `train` is divided by a hash
    (`split_of`); or `split` is that of all rows. `revision` is a branch, tag or commit. No code of the dataset's
    repository is run. For `chosen`, `skip_bad` and errors see `listing`; rows count from 0.
    """
    parts, on_disk = _load(name, config, revision)
    folders = () if on_disk else _image_folders(name)
    faults = Faults(Path(name).name, skip_bad=skip_bad)
    own = {part: split or (part if set(parts) != {"train"} else None) for part in parts}
    rows = (row for part in parts for row in _hub_rows(name, part, parts[part], chosen, own[part], folders, faults))
    return dataset_of(faults.source, merge_rows(rows, name, faults), faults)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote this folder."""
    is_one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return is_one or (folder / "dataset_dict.json").is_file()


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
    if not on_disk:
        look_for_hub()
    try:
        found = datasets.load_from_disk(name) if on_disk else datasets.load_dataset(name, config, revision=revision)
    # RuntimeError: a repository with a script, which `datasets` no longer runs.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        remedy = "Check the name and the network; some need ?config=NAME or ?revision=refs/convert/parquet."
        raise DistilvlError(f"datasets cannot load {name!r}: {one_line(error)}.", remedy) from error
    return (found if isinstance(found, Mapping) else {"train": found}), on_disk


def _hub_rows(
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
