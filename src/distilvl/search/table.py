"""The table of photographs in an embedded LanceDB database: every change is one commit, there whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, require
from distilvl.pictures import full_size
from distilvl.search.filters import has_id, one_of
from distilvl.search.photographs import PhotoFile, Picture
from distilvl.search.records import Hit

EXACT_ROWS = 100_000
"""Up to so many rows, of the table or of what a filter leaves of it, every one is compared with the query."""

# Every partition is looked at: a query in words lies far from all pictures, so that no few partitions are sure to hold
# what is nearest to it. The scan of one byte a number is what saves the time; the best are compared again exactly.
_ROWS_A_PARTITION = 8192
_EVERY_PARTITION = 1 << 20
_COMPARED_AGAIN = 5  # times `top`


def train_index(table: Any, rows: int) -> None:
    """Make the vector index of a table of so many rows, in the place of any that it has."""
    from lancedb.index import IvfSq

    partitions = max(1, rows // _ROWS_A_PARTITION)
    table.create_index("vector", config=IvfSq(distance_type="dot", num_partitions=partitions))


def nearest(
    table: Any, vector: npt.NDArray[np.float32], where: str, top: int, columns: Sequence[str]
) -> list[tuple[dict[str, Any], float]]:
    """The rows with the largest inner product with `vector`, and that product.

    Args:
        table: LanceDB's.
        vector: unit row (D,).
        where: condition that all rows must meet, in SQL; empty for none.
        top: how many; fewer where fewer meet the condition.
        columns: of each row.
    """
    query = table.search(vector, vector_column_name="vector").distance_type("dot").limit(top)
    if where:
        query = query.where(where, prefilter=True)
    if table.count_rows(where or None) <= EXACT_ROWS:
        query = query.bypass_vector_index()
    else:
        query = query.nprobes(_EVERY_PARTITION).refine_factor(_COMPARED_AGAIN)
    rows = query.select([*columns, "_distance"]).to_list()
    return [(row, 1.0 - row.pop("_distance")) for row in rows]


_TABLE = "photos"
_DELETED_AT_ONCE = 500
# A reader of an older version finishes well within this time; what is older is removed from the disk.
_GRACE = timedelta(minutes=5)
_SEEN_AFTER = timedelta(seconds=5)
_HIT_COLUMNS = ("id", "path", "date", "taken", "width", "height")


@dataclass(frozen=True)
class Photo:
    """A row.

    Attributes:
        path: absolute, with `/`; no two rows have the same.
        id: content hash, 32 hex digits.
        size: bytes.
        mtime_ns: time of the last change.
        taken: capture time, if the file has one.
        date: capture time, or time of the last change.
        width: pixels, upright.
        height: pixels, upright.
        thumbnail: JPEG.
        vector: unit row (D,), float32.
    """

    path: str
    id: str
    size: int
    mtime_ns: int
    taken: datetime | None
    date: datetime
    width: int
    height: int
    thumbnail: bytes
    vector: npt.NDArray[np.float32]

    @classmethod
    def of(cls, picture: Picture, vector: npt.NDArray[np.float32]) -> Photo:
        """The row of a picture that was decoded and encoded."""
        file, image = picture.file, picture.image
        assert image is not None  # only decoded pictures are encoded
        date = picture.taken or file.modified
        return cls(file.path, picture.id, file.size, file.mtime_ns, picture.taken, date, *full_size(image),
                   picture.thumbnail, vector)  # fmt: skip

    def at(self, file: PhotoFile) -> Photo:
        """The row of another file with the same content."""
        date = self.taken or file.modified
        return replace(self, path=file.path, size=file.size, mtime_ns=file.mtime_ns, date=date)


class PhotoTable:
    """The table of the index in `folder`, made when it is not there.

    Args:
        folder: the index's.
        dim: D, width of a vector.

    Raises:
        DistilvlError: lancedb is not installed, or the table cannot be read.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        lancedb = require("lancedb", extra="search", why="an index of photographs")
        pa = self._arrow = importlib.import_module("pyarrow")
        self._schema = pa.schema(
            [
                pa.field("path", pa.string(), nullable=False),
                pa.field("id", pa.string(), nullable=False),
                pa.field("size", pa.int64(), nullable=False),
                pa.field("mtime_ns", pa.int64(), nullable=False),
                pa.field("taken", pa.timestamp("s")),
                pa.field("date", pa.timestamp("s"), nullable=False),
                pa.field("width", pa.int32(), nullable=False),
                pa.field("height", pa.int32(), nullable=False),
                pa.field("thumbnail", pa.binary(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            ]
        )
        with self._errors("read"):
            database = lancedb.connect(folder, read_consistency_interval=_SEEN_AFTER)
            self._table: Any = database.create_table(_TABLE, schema=self._schema, exist_ok=True)

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the table of an index, if it has one."""
        shutil.rmtree(folder / f"{_TABLE}.lance", ignore_errors=True)

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def refresh(self) -> None:
        """See what other processes have written up to now."""
        with self._errors("read"):
            self._table.checkout_latest()

    def stamps(self) -> dict[str, tuple[int, int, str]]:
        """Size, time and id of each path."""
        with self._errors("read"):
            found = self._table.search().select(["path", "size", "mtime_ns", "id"]).limit(None).to_arrow()
        columns = (found[name].to_pylist() for name in ("path", "size", "mtime_ns", "id"))
        return {path: (size, mtime, key) for path, size, mtime, key in zip(*columns, strict=True)}

    def with_ids(self, keys: Sequence[str]) -> dict[str, Photo]:
        """One row of each content that is there, by its id."""
        if not keys:
            return {}
        with self._errors("read"):
            found = self._table.search().where(one_of("id", keys)).limit(None).to_arrow()
        vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
        rest = found.drop_columns(["vector"]).to_pylist()
        return {row["id"]: Photo(**row, vector=vector) for row, vector in zip(rest, vectors, strict=True)}

    def one(self, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Those columns of the rows with that id.

        Raises:
            DistilvlError: there is none.
        """
        with self._errors("read"):
            found: list[dict[str, Any]] = (
                self._table.search().where(has_id(key)).select(list(columns)).limit(None).to_list()
            )
        if not found:
            raise DistilvlError(f"no photograph has the id {key}.", "It may have been deleted; search again.")
        return found

    def write(self, photos: Sequence[Photo], *, replacing: bool) -> None:
        """Add rows, all in one commit; with `replacing`, in the place of those with the same path."""
        pa = self._arrow
        columns = [[getattr(photo, name) for photo in photos] for name in self._schema.names[:-1]]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, self._schema, strict=False)]
        flat = np.concatenate([photo.vector for photo in photos])
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), self._dim))
        rows = pa.Table.from_arrays(arrays, schema=self._schema)
        with self._errors("write to"):
            if replacing:
                merge = self._table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(rows)
            else:
                self._table.add(rows)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove the rows of these files."""
        with self._errors("write to"):
            for start in range(0, len(paths), _DELETED_AT_ONCE):
                self._table.delete(one_of("path", paths[start : start + _DELETED_AT_ONCE]))

    def tidy(self) -> None:
        """Put small commits together, bring the vector index up to date, and drop what no reader needs any more."""
        with self._errors("write to"):
            self._table.optimize(cleanup_older_than=_GRACE)

    def train(self, trained_rows: int) -> int:
        """Make a vector index where the table is large enough for one and has outgrown the one it has.

        Args:
            trained_rows: what this returned the last time; 0 before.

        Returns:
            The number of rows that the index now in place was made for; 0 while searches are exact.
        """
        rows = len(self)
        if rows <= EXACT_ROWS or rows <= 2 * trained_rows:
            return trained_rows
        with self._errors("write to"):
            train_index(self._table, rows)
        return rows

    def nearest(self, vector: npt.NDArray[np.float32], conditions: Sequence[str], top: int) -> list[Hit]:
        """The `top` files that meet all `conditions` and are most similar to a unit row (D,), best first."""
        where = " AND ".join(conditions)
        with self._errors("read"):
            found = nearest(self._table, vector, where, top, _HIT_COLUMNS)
        hits = [Hit(**row, score=score, paths=(row["path"],)) for row, score in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))

    def count(self, conditions: Sequence[str]) -> int:
        """Number of files that meet all `conditions`, of which there is at least one."""
        with self._errors("read"):
            return int(self._table.count_rows(" AND ".join(conditions)))

    def some_paths(self, most: int) -> list[str]:
        """The paths of at most so many files."""
        with self._errors("read"):
            found: list[str] = self._table.search().select(["path"]).limit(most).to_arrow()["path"].to_pylist()
        return found

    def paths(self, keys: Sequence[str], conditions: Sequence[str]) -> dict[str, list[str]]:
        """The files with each of these contents that meet all `conditions`, sorted."""
        where = " AND ".join([one_of("id", keys), *conditions])
        with self._errors("read"):
            found = self._table.search().where(where).select(["id", "path"]).limit(None).to_arrow()
        paths: dict[str, list[str]] = {}
        for key, path in sorted(zip(found["id"].to_pylist(), found["path"].to_pylist(), strict=True)):
            paths.setdefault(key, []).append(path)
        return paths

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """LanceDB's errors of disks and damaged files, as one line."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            raise DistilvlError(
                f"cannot {doing} the index {self._folder}: {text}",
                "Check the disk's space and permissions and run the command again; if the index is damaged, --rebuild.",
            ) from error
