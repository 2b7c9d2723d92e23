"""Columns of Arrow tables as feature arrays: what Parquet files and Hugging Face datasets have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.teachers.arrays import FeatureArrays
from distilvl.teachers.import_spec import ImportSpec


def arrays_of_tables(tables: Iterable[tuple[str, Any]], spec: ImportSpec, revision: str) -> FeatureArrays:
    """The rows of all tables, by id.

    A table may hold images, captions or both, and an image as often as it has captions: its first row counts. Rows
    without an embedding (null) are left out. Embeddings are copied into unnamed temporary files, so that memory does
    not grow with their number.

    Args:
        tables: names, for error messages, and `pyarrow.Table`s.
        spec: names of the columns.
        revision: the teacher's.

    Raises:
        DistilvlError: no image or no caption in any table, missing columns, or embeddings of several widths.
    """
    images, texts = _Column("image", spec.image), _Column("text", spec.text)
    for where, table in tables:
        columns = set(table.column_names)
        if spec.image in columns:
            ids = _strings(table, spec.id, where)
            images.take([None if value is None else spec.image_id(value) for value in ids], table[spec.image], where)
        if spec.text in columns:
            texts.take(_strings(table, spec.caption_id or spec.caption, where), table[spec.text], where)
    image_rows, text_rows = images.rows(spec), texts.rows(spec)
    if image_rows.shape[1] != text_rows.shape[1]:
        raise DistilvlError(
            f"{spec.path}: {spec.image!r} has width {image_rows.shape[1]}, {spec.text!r} has width "
            f"{text_rows.shape[1]}.",
            "Both sides of a teacher share one space.",
        )
    return FeatureArrays(
        spec.teacher, revision, image_rows, text_rows, images.known, texts.known, by_caption=spec.caption_id is None
    )


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
            raise DistilvlError(
                f"{spec.path} holds no {self._what} embeddings in a column {self._name!r}.",
                f"Name the column: ?{self._what}=COLUMN.",
            )
        self._file.flush()
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=(len(self.known), self._dim))

    def _values(self, column: Any, count: int, where: str) -> npt.NDArray[np.float32]:
        try:
            parts = [np.asarray(_flat(chunk), dtype=np.float32) for chunk in column.chunks]
            widths = {len(value) for value in column}
        except (TypeError, ValueError, AttributeError) as error:
            raise DistilvlError(
                f"{where}: the column {self._name!r} does not hold lists of numbers, but {column.type}.",
                f"Name another one: ?{self._what}=COLUMN.",
            ) from error
        widths |= set() if self._dim is None else {self._dim}
        if len(widths) > 1 or 0 in widths:
            raise DistilvlError(
                f"{where}: the column {self._name!r} holds rows of widths {', '.join(map(str, sorted(widths)))}.",
                "All rows of a teacher have one width.",
            )
        self._dim = widths.pop()
        return np.concatenate(parts).reshape(count, self._dim)


def _flat(chunk: Any) -> Any:
    """The numbers of a chunk of lists, one after the other; nulls among them become NaN, which a store refuses."""
    return chunk.flatten().to_numpy(zero_copy_only=False)


def _strings(table: Any, name: str, where: str) -> list[str | None]:
    if name not in table.column_names:
        raise DistilvlError(
            f"{where} has no column {name!r}; it has {', '.join(table.column_names)}.",
            "Name the column with ?id= (images), and ?caption= or ?caption_id= (texts).",
        )
    return [None if value is None else str(value) for value in table[name].to_pylist()]
