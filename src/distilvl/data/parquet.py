"""Reader of Parquet files: one image or one caption a row, with the image's bytes or its path in a column."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from distilvl.data.columns import NO_CHOICE, Choice, Columns, Row, captions_in, column_types, find_columns, merge_rows
from distilvl.data.left_out import BadItemError, Faults
from distilvl.data.listing import dataset_of, image_in, path_in, split_in_path, usual_split
from distilvl.data.records import FileImage, ImageSource, PairDataset
from distilvl.data.remote import AnyPath, RemotePath, RemoteReadError, is_remote, remote_files
from distilvl.errors import BadImageError, DistilvlError, require
from distilvl.pictures import BAD_IMAGE_REMEDY

_GROUPS_HELD = 2  # two threads decode side by side, so that at a border both groups are in use


def read_parquet(
    path: str | Path, *, chosen: Choice = NO_CHOICE, roots: Sequence[Path] = (), skip_bad: bool = False
) -> PairDataset:
    """The dataset of a Parquet file, or of all `*.parquet` in a folder and in its folder `data/`.

    Columns are found by `find_columns`. The image column holds encoded images (bytes, or the struct with `bytes`
    that Hugging Face writes), or paths relative to the file's folder. Rows with the same `image_id` (`img_id`,
    `imgid`), or the same path, are merged; an image without either is called `file/row`. Files and paths are named from
    the folder that all the files lie below, so equal names in two folders stay apart. Splits come from the
    column `split`, or from the files' names (`train-00000-of-00004.parquet`), or else from a hash (`split_of`).
    Bytes are read when an image is, a row group at a time, so a row group has to fit into memory. Behind an address the
    images have to be in the file.

    Args:
        path: file or folder, or the address of one, in which `*` and `[0-9]` may stand for several files.
        chosen: columns, if they are not found by name and type.
        roots: the folders of image files instead of the file's own: the first is what paths are relative to, absolute
            ones may lie in any. Without them absolute paths may lie in the file's folder only.
        skip_bad: leave out and count bad rows (see `Faults`) and what `dataset_of` refuses, instead of raising.

    Raises:
        DistilvlError: pyarrow is not installed (extra `parquet`); not a Parquet file, unclear columns, text that is not
            UTF-8, an address that cannot be read; unless `skip_bad`, a bad row (by its number, from 0), a missing image
            file, an image without captions.
    """
    name, files = _files(path)
    if not files:
        raise DistilvlError(f"the folder {path} holds no *.parquet.", "Check the path.")
    groups = RowGroups()
    folders = zip(*(file.parent.parts for file in files), strict=False)
    above = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    faults = Faults(name, skip_bad=skip_bad)
    rows = (row for file in files for row in _rows(file, above, groups, chosen, roots, faults))
    return dataset_of(name, merge_rows(rows, str(path), faults), faults)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder and of its folder `data/`; not hidden ones, such as macOS puts beside others."""
    found = [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]
    return sorted(path for path in found if not path.name.startswith("."))


def holds_images(path: Path) -> bool:
    """Whether a Parquet file has columns of images and captions, rather than addresses alone."""
    with _as_parquet(path), _opened(path) as file:
        types = column_types(file.schema_arrow, "parquet")
    try:
        find_columns(types, str(path), paths=True)
    except DistilvlError:
        return "bytes" in types.values()
    return True


def _files(path: str | Path) -> tuple[str, Sequence[AnyPath]]:
    """How the dataset is called, and its files."""
    if isinstance(path, str) and is_remote(path):
        place = path.rstrip("/")
        return PurePosixPath(place).stem, remote_files(place, ".parquet", ("*", "data/*"))
    path = Path(path)
    if path.is_dir():
        return path.resolve().name, parquet_files(path)
    return path.stem, [path]


@contextmanager
def _opened(path: AnyPath) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`."""
    parquet = require("pyarrow.parquet", extra="parquet")
    if isinstance(path, RemotePath):
        with path.open("rb") as file, parquet.ParquetFile(file) as opened:
            yield opened
    else:
        with parquet.ParquetFile(path) as opened:
            yield opened


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
    """An image in a Parquet file, or beside it where a struct has a path in place of bytes.

    Attributes:
        path: of the file.
        column: the cell's column.
        group: its row group.
        row: its row in the group.
        name: what error messages call it.
        groups: through which it is read.
        roots: of image files, instead of the folder of the Parquet file.
    """

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
            raise BadImageError(
                f"cannot read {self.name}: {' '.join(str(error).split()).rstrip('.')}.", BAD_IMAGE_REMEDY
            ) from error
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if data is None and isinstance(path, str) and isinstance(self.path, Path):
            return self._beside(self.path, path)
        if not isinstance(data, bytes):
            raise BadImageError(f"{self.name} has no image.", BAD_IMAGE_REMEDY)
        return data

    def _beside(self, table: Path, path: str) -> bytes:
        root = self.roots[0] if self.roots else table.parent
        try:
            return image_in(root, path, self.name, self.roots).read()
        except BadItemError as error:
            raise BadImageError(str(error)) from error


def _rows(
    path: AnyPath, above: int, groups: RowGroups, chosen: Choice, roots: Sequence[Path], faults: Faults
) -> Iterator[Row]:
    """The rows of one file, named from the folder that is `above` parts deep."""
    below = path.parent.parts[above:]
    folder, split = "".join(f"{part}/" for part in below), split_in_path(Path(path.name), below[-1] if below else "")
    with _as_parquet(path), _opened(path) as file:
        types = column_types(file.schema_arrow, "parquet")
        columns = find_columns(types, str(path), chosen, paths=isinstance(path, Path))
        in_file = types[columns.image] == "bytes"
        wanted = [*columns.captions, *filter(None, (columns.split, columns.image_id))]
        before = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=wanted if in_file else [*wanted, columns.image])
            table.validate(full=True)  # or else text that is not UTF-8 is an error without a place
            for row, values in enumerate(table.to_pylist()):
                where = f"{path}, row {before + row}"
                if in_file or not isinstance(path, Path):
                    source: ImageSource | None = ParquetImage(
                        path, columns.image, group, row, where, groups, tuple(roots)
                    )
                    key = f"{path.stem}/{before + row}"
                else:
                    source, key = _file_of(path, values[columns.image], where, roots, faults)
                if source is None:
                    continue
                key = key if roots and not in_file else f"{folder}{key}"
                made = faults.attempt(functools.partial(table_row, where, key, source, values, columns, split))
                if made is not None:
                    yield made
            before += table.num_rows


def _file_of(
    table: Path, value: Any, where: str, roots: Sequence[Path], faults: Faults
) -> tuple[FileImage | None, str]:
    """The image file that a cell of paths names, and its path in the image folder; nothing, and a fault, if none."""
    root = roots[0] if roots else table.parent
    name = value.get("path") if isinstance(value, dict) else value
    image = faults.attempt(functools.partial(image_in, root, name, where, roots))
    return image, "" if image is None else path_in(root, str(name))


@contextmanager
def _as_parquet(path: AnyPath) -> Iterator[None]:
    """What pyarrow says of a file that is none, as the one error that names it."""
    arrow = require("pyarrow", extra="parquet")
    try:
        yield
    except (OSError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DistilvlError(
            f"cannot read {path} as Parquet: {reason.rstrip('.')}.",
            "Check that the file is complete, and its texts are UTF-8.",
        ) from error


def table_row(
    where: str, key: str, image: ImageSource, values: dict[str, Any], columns: Columns, split: str | None
) -> Row:
    """What a row of a table says; `split` counts where the table has no column for it.

    Raises:
        BadItemError: the column of splits or of ids is empty in this row.
    """
    for name in filter(None, (columns.split, columns.image_id)):
        if values[name] is None or values[name] == "":
            raise BadItemError(
                f"{where}: the column {name!r} is empty",
                "Fill it in every row, or leave it out.",
                name=where,
                reason=f"nothing in the column {name!r}",
            )
    captions = [caption for name in columns.captions for caption in captions_in(values[name])]
    if columns.split is not None:
        split = usual_split(values[columns.split])
    return Row(where, str(values[columns.image_id]) if columns.image_id else key, image, captions, split)
