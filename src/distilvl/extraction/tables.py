"""Embeddings that other tools stored: Parquet tables, clip-retrieval's folders, Hugging Face datasets."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, one_line, require
from distilvl.extraction.importing import FeatureArrays, float_array, require_one_space
from distilvl.io.hashes import file_hash
from distilvl.io.specs import choice, parse_spec, split_kind, word

_BATCH_ROWS = 8192
_ANEW = "Write it anew."
_NUMBER = re.compile(r"_(\d+)\.(npy|parquet)")
_KINDS = ("parquet", "clip-retrieval", "hf-dataset")
_FORM = "Write parquet:PATH, clip-retrieval:FOLDER or hf-dataset:FOLDER, with ?id=COLUMN&image=COLUMN&... after it."


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Where features lie, and under which names."""

    kind: str  # `parquet`, `clip-retrieval` or `hf-dataset`
    path: Path  # a file or folder
    id: str = "id"  # column of the images' ids, which are the dataset's `image_id`s
    id_part: str = "all"  # what of an id counts: `all`, `name` (without folders) or `stem` (and without the ending)
    image: str = "image_embedding"  # column of the images' embeddings
    caption: str = "caption"  # column of the captions, by which texts are found, unless `caption_id` is given
    caption_id: str | None = None  # column of the captions' ids, which are the dataset's caption ids
    text: str = "text_embedding"  # column of the captions' embeddings
    split: str | None = None  # of a dataset dictionary
    name: str | None = None  # the teacher's
    revision: str | None = None  # the teacher's; a hash of the files unless given

    @property
    def known_by(self) -> str:
        """The column by which texts are found."""
        return self.caption_id or self.caption

    @property
    def columns(self) -> set[str]:
        """All that may be in a table."""
        return {self.id, self.image, self.text, self.known_by}

    def image_id(self, value: object) -> str:
        """The part of an id that counts."""
        path = PurePosixPath(str(value))
        return {"all": str(value), "name": path.name, "stem": path.stem}[self.id_part]


_NAMES = ("id", "image", "caption", "caption_id", "text", "split", "name", "revision")
_OPTIONS = {"id_part": choice("all", "name", "stem")} | dict.fromkeys(_NAMES, word("a name"))


def is_import(spec: str) -> bool:
    """Whether `spec` names features to import."""
    return bool(split_kind(spec, _KINDS)[0])


def read_import_spec(spec: str) -> ImportSpec:
    """What `spec` says; `DistilvlError` for another form, an unknown option or value, or a path that is not there."""
    parsed = parse_spec(spec, _KINDS, "features")
    if not parsed.kind or not parsed.place:
        raise DistilvlError(f"{spec!r} names no features to import.", _FORM)
    given = parsed.read(_OPTIONS)
    path = Path(parsed.place)
    if not path.exists():
        raise DistilvlError(f"there are no features at {path}.", _FORM)
    own = {"id": "image_path"} if parsed.kind == "clip-retrieval" else {}
    return replace(ImportSpec(kind=parsed.kind, path=path), **{**own, **given})


def load_import(spec: str) -> FeatureArrays:
    """The embeddings that `spec` names; `DistilvlError` as `read_import_spec`, or files that cannot be read."""
    parsed = read_import_spec(spec)
    return {"parquet": _parquet, "clip-retrieval": _clip_retrieval, "hf-dataset": _hf_dataset}[parsed.kind](parsed)


def _parquet(spec: ImportSpec) -> FeatureArrays:
    """A Parquet file, or all of a folder."""
    files = sorted(spec.path.glob("**/*.parquet")) if spec.path.is_dir() else [spec.path]
    if not files:
        raise DistilvlError(f"the folder {spec.path} holds no .parquet files.", "Give a file or another folder.")
    tables = (table for file in files for table in _tables_of(file, spec.columns))
    return arrays_of_tables(tables, spec, spec.revision or file_hash(*files)[:16])


def _tables_of(file: Path, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    arrow = require("pyarrow", extra="parquet", why="this import")
    parquet = require("pyarrow.parquet", extra="parquet", why="this import")
    try:
        with parquet.ParquetFile(file) as opened:
            columns = [name for name in opened.schema_arrow.names if name in wanted]
            for batch in opened.iter_batches(_BATCH_ROWS, columns=columns):
                yield str(file), arrow.Table.from_batches([batch])
    except (OSError, arrow.ArrowException) as error:
        problem = f"{file} is not a Parquet file that can be read: {one_line(error, 200)}."
        raise DistilvlError(problem, _ANEW) from error


def _hf_dataset(spec: ImportSpec) -> FeatureArrays:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    datasets = require("datasets", extra="datasets", why="this import")
    try:
        loaded = datasets.load_from_disk(str(spec.path))
    except (OSError, ValueError) as error:
        problem = f"{spec.path} is not a dataset on disk: {one_line(error, 200)}."
        raise DistilvlError(problem, "Give the folder that Dataset.save_to_disk wrote.") from error
    if isinstance(loaded, datasets.DatasetDict):
        if spec.split not in loaded:
            problem = f"the dataset {spec.path} has the splits {', '.join(loaded)}, not {spec.split!r}."
            raise DistilvlError(problem, "Add ?split=NAME.")
        loaded = loaded[spec.split]
    chosen = loaded.select_columns([name for name in loaded.column_names if name in spec.columns])
    tables = ((str(spec.path), table) for table in chosen.with_format("arrow").iter(_BATCH_ROWS))
    return arrays_of_tables(tables, spec, spec.revision or file_hash(*sorted(spec.path.glob("**/*.arrow")))[:16])


def _clip_retrieval(spec: ImportSpec) -> FeatureArrays:
    """The folder that `clip-retrieval inference` wrote; its arrays and `metadata_K.parquet` have the same rows."""
    images, texts = _numbered(spec.path / "img_emb", "npy"), _numbered(spec.path / "text_emb", "npy")
    metadata = _numbered(spec.path / "metadata", "parquet")
    if not metadata or [*images] != [*metadata] or [*texts] != [*metadata]:
        counts = f"{len(images)} files of image rows, {len(texts)} of text rows and {len(metadata)} of metadata"
        remedy = "A clip-retrieval folder has img_emb/, text_emb/ and metadata/ with the same numbers."
        raise DistilvlError(f"{spec.path} holds {counts}, which do not match.", remedy)
    arrow = require("pyarrow", extra="parquet", why="this import")

    def tables() -> Iterator[tuple[str, Any]]:
        for number, file in metadata.items():
            table = arrow.concat_tables([table for _, table in _tables_of(file, {spec.id, spec.known_by})])
            columns = {spec.image: _rows(images[number], len(table)), spec.text: _rows(texts[number], len(table))}
            for start in range(0, len(table), _BATCH_ROWS):
                part = table.slice(start, _BATCH_ROWS)
                for name, rows in columns.items():
                    numbers = arrow.array(rows[start : start + _BATCH_ROWS].astype(np.float32).ravel())
                    part = part.append_column(name, arrow.FixedSizeListArray.from_arrays(numbers, rows.shape[1]))
                yield str(file), part

    files = [*images.values(), *texts.values(), *metadata.values()]
    return arrays_of_tables(tables(), spec, spec.revision or file_hash(*files)[:16])


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found = {int(match[1]): path for path in folder.glob(f"*.{suffix}") if (match := _NUMBER.search(path.name))}
    return dict(sorted(found.items()))


def _rows(path: Path, count: int) -> npt.NDArray[Any]:
    rows = float_array(path, _ANEW)
    if len(rows) != count:
        raise DistilvlError(f"{path} holds {rows.dtype} of shape {rows.shape} for {count} items.", _ANEW)
    return rows


def arrays_of_tables(tables: Iterable[tuple[str, Any]], spec: ImportSpec, revision: str) -> FeatureArrays:
    """The embeddings of all `pyarrow.Table`s, each with its name for messages, by id.

    A table may hold images, captions or both, and an image as often as it has captions: its first row counts. Rows
    without an embedding (null) are left out. Embeddings are copied into unnamed temporary files, so that memory does
    not grow with their number. `DistilvlError` for no image or no caption in any table, missing columns, or embeddings
    of several dimensions.
    """
    images, texts = _Column("image", spec.image), _Column("text", spec.text)
    for where, table in tables:
        columns = set(table.column_names)
        if spec.image in columns:
            ids = _strings(table, spec.id, where)
            images.take([None if value is None else spec.image_id(value) for value in ids], table[spec.image], where)
        if spec.text in columns:
            texts.take(_strings(table, spec.known_by, where), table[spec.text], where)
    image_rows, text_rows = images.rows(spec), texts.rows(spec)
    require_one_space(spec.path, {repr(spec.image): image_rows, repr(spec.text): text_rows})
    name, by_caption = spec.name or spec.kind, spec.caption_id is None
    return FeatureArrays(name, revision, image_rows, text_rows, images.known, texts.known, by_caption)


class _Column:
    """Embeddings of one column, gathered table by table."""

    def __init__(self, what: str, name: str) -> None:
        self._what, self._name = what, name
        # It lives as long as the memory map of it, and has no name that could be left behind.
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._dim: int | None = None
        self.known: dict[str, int] = {}

    def take(self, ids: list[str | None], column: Any, where: str) -> None:
        """Append the rows of all ids that are new."""
        chosen = []
        for row, (item, valid) in enumerate(zip(ids, column.is_valid().to_pylist(), strict=True)):
            if item is not None and valid and item not in self.known:
                self.known[item] = len(self.known)
                chosen.append(row)
        if chosen:
            self._file.write(self._values(column.take(chosen), len(chosen), where).tobytes())

    def rows(self, spec: ImportSpec) -> npt.NDArray[np.float32]:
        """All rows, memory-mapped: shape (n, D)."""
        if self._dim is None:
            problem = f"{spec.path} holds no {self._what} embeddings in a column {self._name!r}."
            raise DistilvlError(problem, f"Name the column: ?{self._what}=COLUMN.")
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=(len(self.known), self._dim))

    def _values(self, column: Any, count: int, where: str) -> npt.NDArray[np.float32]:
        try:
            # Nulls among the numbers become NaN, which a store refuses.
            flat = [np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), np.float32) for chunk in column.chunks]
            dims = {len(value) for value in column}
        except (TypeError, ValueError, AttributeError) as error:
            problem = f"{where}: the column {self._name!r} does not hold lists of numbers, but {column.type}."
            raise DistilvlError(problem, f"Name another one: ?{self._what}=COLUMN.") from error
        dims |= set() if self._dim is None else {self._dim}
        if len(dims) > 1 or 0 in dims:
            found = ", ".join(map(str, sorted(dims)))
            problem = f"{where}: the column {self._name!r} holds rows of dimensions {found}."
            raise DistilvlError(problem, "All embeddings of a teacher have one dimension.")
        self._dim = dims.pop()
        return np.concatenate(flat).reshape(count, self._dim)


def _strings(table: Any, name: str, where: str) -> list[str | None]:
    if name not in table.column_names:
        remedy = "Name the column with ?id= (images), and ?caption= or ?caption_id= (texts)."
        raise DistilvlError(f"{where} has no column {name!r}; it has {', '.join(table.column_names)}.", remedy)
    return [None if value is None else str(value) for value in table[name].to_pylist()]
