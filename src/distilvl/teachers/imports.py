"""Readers of stored features, one a kind of file."""

from __future__ import annotations

import hashlib
import importlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.teachers.arrays import FeatureArrays
from distilvl.teachers.import_spec import ImportSpec, read_import_spec
from distilvl.teachers.tables import arrays_of_tables

_BATCH_ROWS = 8192
_NUMBER = re.compile(r"_(\d+)\.(npy|parquet)")


def load_import(spec: str) -> FeatureArrays:
    """The features that `spec` names (see `read_import_spec`).

    Raises:
        DistilvlError: a malformed spec, files that are missing or broken, or an extra that is not installed.
    """
    parsed = read_import_spec(spec)
    return {"parquet": _parquet, "clip-retrieval": _clip_retrieval, "hf-dataset": _hf_dataset}[parsed.kind](parsed)


def _parquet(spec: ImportSpec) -> FeatureArrays:
    """A Parquet file, or all of a folder."""
    files = sorted(spec.path.glob("**/*.parquet")) if spec.path.is_dir() else [spec.path]
    if not files:
        raise DistilvlError(f"the folder {spec.path} holds no .parquet files.", "Give a file or another folder.")
    wanted = {spec.id, spec.image, spec.text, spec.caption_id or spec.caption}
    tables = (table for file in files for table in _tables_of(file, wanted))
    return arrays_of_tables(tables, spec, spec.revision or _hash(files))


def _tables_of(file: Path, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    arrow, parquet = _package("pyarrow", "parquet"), _package("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(file) as opened:
            columns = [name for name in opened.schema_arrow.names if name in wanted]
            for batch in opened.iter_batches(_BATCH_ROWS, columns=columns):
                yield str(file), arrow.Table.from_batches([batch])
    except (OSError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DistilvlError(
            f"{file} is not a Parquet file that can be read: {reason[:200]}.", "Write it anew."
        ) from error


def _hf_dataset(spec: ImportSpec) -> FeatureArrays:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    datasets = _package("datasets", "datasets")
    try:
        loaded = datasets.load_from_disk(str(spec.path))
    except (OSError, ValueError) as error:
        raise DistilvlError(
            f"{spec.path} is not a dataset on disk: {' '.join(str(error).split())[:200]}.",
            "Give the folder that Dataset.save_to_disk wrote.",
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if spec.split not in loaded:
            raise DistilvlError(
                f"the dataset {spec.path} has the splits {', '.join(loaded)}, not {spec.split!r}.", "Add ?split=NAME."
            )
        loaded = loaded[spec.split]
    wanted = {spec.id, spec.image, spec.text, spec.caption_id or spec.caption}
    chosen = loaded.select_columns([name for name in loaded.column_names if name in wanted])
    tables = ((str(spec.path), table) for table in chosen.with_format("arrow").iter(_BATCH_ROWS))
    files = sorted(path for path in spec.path.glob("**/*.arrow"))
    return arrays_of_tables(tables, spec, spec.revision or _hash(files))


def _clip_retrieval(spec: ImportSpec) -> FeatureArrays:
    """The folder that `clip-retrieval inference` wrote.

    `img_emb/img_emb_K.npy`, `text_emb/text_emb_K.npy` and `metadata/metadata_K.parquet` have the same rows. Texts are
    found by caption, images by the column `image_path` unless the spec names another.
    """
    images = _numbered(spec.path / "img_emb", "npy")
    texts = _numbered(spec.path / "text_emb", "npy")
    metadata = _numbered(spec.path / "metadata", "parquet")
    if not metadata or [*images] != [*metadata] or [*texts] != [*metadata]:
        raise DistilvlError(
            f"{spec.path} holds {len(images)} files of image rows, {len(texts)} of text rows and {len(metadata)} of "
            f"metadata, which do not match.",
            "A clip-retrieval folder has img_emb/, text_emb/ and metadata/ with the same numbers.",
        )
    arrow = _package("pyarrow", "parquet")
    wanted = {spec.id, spec.caption_id or spec.caption}

    def tables() -> Iterator[tuple[str, Any]]:
        for number, file in metadata.items():
            table = arrow.concat_tables([table for _, table in _tables_of(file, wanted)])
            columns = {spec.image: _rows(images[number], len(table)), spec.text: _rows(texts[number], len(table))}
            for start in range(0, len(table), _BATCH_ROWS):
                part = table.slice(start, _BATCH_ROWS)
                for name, rows in columns.items():
                    part = part.append_column(name, _lists(arrow, rows[start : start + _BATCH_ROWS]))
                yield str(file), part

    files = [*images.values(), *texts.values(), *metadata.values()]
    return arrays_of_tables(tables(), spec, spec.revision or _hash(files))


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found = {int(match[1]): path for path in folder.glob(f"*.{suffix}") if (match := _NUMBER.search(path.name))}
    return dict(sorted(found.items()))


def _rows(path: Path, count: int) -> npt.NDArray[Any]:
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DistilvlError(f"{path} is not a plain NumPy array: {error}.", "Write it anew.") from error
    if not isinstance(rows, np.ndarray):
        raise DistilvlError(f"{path} is not one array.", "Write it anew.")
    if rows.ndim != 2 or len(rows) != count or not np.issubdtype(rows.dtype, np.floating):
        raise DistilvlError(f"{path} holds {rows.dtype} of shape {rows.shape} for {count} items.", "Write it anew.")
    return rows


def _lists(arrow: ModuleType, rows: npt.NDArray[Any]) -> Any:
    return arrow.FixedSizeListArray.from_arrays(arrow.array(rows.astype(np.float32).ravel()), rows.shape[1])


def _hash(files: Sequence[Path]) -> str:
    """Hash of what all `files` hold, in order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _package(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DistilvlError(
            f"this import needs the package {name.partition('.')[0]!r}, which is not installed.",
            f"Run: pip install 'distilvl[{extra}]'",
        ) from error
