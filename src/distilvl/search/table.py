"""The table of photographs in an embedded LanceDB database: every change is one commit, there whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError, OptionError, UnavailableError, one_line
from distilvl.pictures import full_size
from distilvl.search.photographs import PhotoFile, Picture

Embeddings = npt.NDArray[np.float32]

# Up to so many rows, of the table or of what a filter leaves of it, every one is compared with the query.
EXACT_ROWS = 100_000

# Every partition is searched: a query in words lies far from all pictures. The scan of one byte a number is what saves
# the time; the best are compared again exactly.
_ROWS_A_PARTITION = 8192
_EVERY_PARTITION = 1 << 20
_COMPARED_AGAIN = 5  # times `top`

_TABLE, _STORED, _DELETED_AT_ONCE = "photos", "stored", 500
# A reader of an older version finishes well within the first time; what is older is removed from the disk.
_GRACE, _SEEN_AFTER = timedelta(minutes=5), timedelta(seconds=5)
_HIT_COLUMNS = ("id", "path", "date", "taken", "width", "height")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Hit:
    """A picture that was found, with all its copies; or, where copies were asked for by themselves, one file.

    Attributes:
        id: content hash, 32 hex digits; copies of a file share it.
        path: absolute, with `/`; the first of `paths`.
        score: cosine with the query, -1 to 1.
        date: when it was taken, or, where the file does not say, when it was last modified; local time.
        taken: when it was taken, if the file says so (EXIF).
        width, height: pixels, upright.
        paths: the files with this picture that meet the conditions of the search, sorted.
    """

    id: str
    path: str
    score: float
    date: datetime
    taken: datetime | None
    width: int
    height: int
    paths: tuple[str, ...]

    @property
    def copies(self) -> int:
        """How many files: 1 where there is no copy."""
        return len(self.paths)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; times in ISO 8601 without a zone."""
        taken = None if self.taken is None else self.taken.isoformat()
        times = {"date": self.date.isoformat(), "taken": taken}
        return {**asdict(self), **times, "copies": self.copies, "paths": list(self.paths)}


@dataclass(frozen=True)
class Photo:
    """A row of the table, one file: `date` is the capture time, or the time of the last change.

    `path` is absolute, with `/`, and in one row only; `id` the content hash; `thumbnail` a JPEG; `vector` the
    L2-normalised embedding (D,), float32, of the model or, `stored`, of its teacher; `width` and `height` are pixels,
    upright.
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
    vector: Embeddings
    stored: bool = False

    @classmethod
    def of(cls, picture: Picture, vector: Embeddings, stored: bool = False) -> Photo:
        """The row of a picture that was decoded, with its embedding."""
        file, image = picture.file, picture.image
        assert image is not None  # only decoded pictures are encoded
        date = picture.taken or file.modified
        return cls(file.path, picture.id, file.size, file.mtime_ns, picture.taken, date, *full_size(image),
                   picture.thumbnail, vector, stored)  # fmt: skip

    def at(self, file: PhotoFile) -> Photo:
        """The row of another file with the same content."""
        date = self.taken or file.modified
        return replace(self, path=file.path, size=file.size, mtime_ns=file.mtime_ns, date=date)


def quoted(text: str) -> str:
    """`text` as a string of SQL; `OptionError` for a NUL or half of a surrogate pair, which no stored text has."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise OptionError("folder", f"{text[:100]!r} is not text that can be searched for.", "Check the name.")
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """Rows whose `column` is one of `values`, of which there must be at least one."""
    return f"{column} IN ({', '.join(map(quoted, values))})"


def has_id(key: str) -> str:
    """Rows of that content; `OptionError` if it is not 32 hex digits."""
    if not _ID.fullmatch(key):
        remedy = "An id has 32 hex digits, as in a hit."
        raise OptionError("like", f"{key[:100]!r} is not the id of a photograph.", remedy)
    return f"id = {quoted(key)}"


def scores_of(vectors: Embeddings, query: Embeddings) -> list[float]:
    """Dot products of rows (n, D) with a query (D,), rounded to float32 once: the same bits whatever found them."""
    return [float(score) for score in (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)]


class PhotoTable:
    """The table of an index, in its folder `home`; `dim` is D, the embedding dimension.

    It is opened, and with `new` made where it is not there, on first use; then `DistilvlError`: lancedb is not
    installed, or the table cannot be read.
    """

    def __init__(self, index: Path, dim: int, *, home: str = "", new: bool = True) -> None:
        self.index, self.folder, self._dim, self._new = index, index / home, dim, new

    @functools.cached_property
    def _arrow(self) -> Any:
        return importlib.import_module("pyarrow")

    @functools.cached_property
    def _plain(self) -> Any:
        pa = self._arrow
        text, whole, time = pa.string(), pa.int64(), pa.timestamp("s")
        kinds = {"path": text, "id": text, "size": whole, "mtime_ns": whole, "taken": time, "date": time,
                 "width": pa.int32(), "height": pa.int32(), "thumbnail": pa.binary(),
                 "vector": pa.list_(pa.float32(), self._dim)}  # fmt: skip
        return pa.schema([pa.field(name, kind, nullable=name == "taken") for name, kind in kinds.items()])

    @functools.cached_property
    def _table(self) -> Any:
        os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings are none of ours
        try:
            import lancedb
        except ImportError as error:
            message = "an index of photographs needs the package lancedb."
            raise DistilvlError(message, "Run: pip install 'distilvl[search]'") from error
        with self._errors("read"):
            database = lancedb.connect(self.folder, read_consistency_interval=_SEEN_AFTER)
            try:
                table = database.open_table(_TABLE)
            except ValueError:  # it is not there, or it is damaged
                if not self._new:
                    raise
                table = database.create_table(_TABLE, schema=self._plain, exist_ok=True)
            if not table.schema.equals(self._marked if _STORED in table.schema.names else self._plain):
                raise ValueError("its columns are not those of an index of this dimension")
        return table

    @property
    def is_open(self) -> bool:
        """Whether LanceDB has opened it: on first use."""
        return "_table" in vars(self)

    def open(self) -> None:
        """Open it now."""
        assert self._table is not None

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the table of an index, if it has one."""
        shutil.rmtree(folder / f"{_TABLE}.lance", ignore_errors=True)

    def __len__(self) -> int:
        with self._errors("read"):
            return int(self._table.count_rows())

    @property
    def _schema(self) -> Any:
        """That of the table as it is now: another process may have called `mark_stored`."""
        return self._marked if self._is_marked else self._plain

    @property
    def _marked(self) -> Any:
        return self._plain.append(self._arrow.field(_STORED, self._arrow.bool_(), nullable=False))

    @property
    def _is_marked(self) -> bool:
        return _STORED in self._table.schema.names

    def mark_stored(self) -> None:
        """Have the table tell of each row whether its embedding is a stored one; those that are there are not."""
        if not self._is_marked:
            with self._errors("write to"):
                self._table.add_columns({_STORED: "false"})

    def count_stored(self) -> int:
        """Rows whose embedding is a stored one."""
        return int(self._table.count_rows(_STORED)) if self._is_marked else 0

    def refresh(self) -> None:
        """See what other processes have written up to now."""
        if self.is_open:
            with self._errors("read"):
                self._table.checkout_latest()

    def nearest(self, vector: Embeddings, conditions: Sequence[str], top: int) -> list[Hit]:
        """The `top` files that meet all `conditions` (in SQL) and are most similar to an L2-normalised query (D,)."""
        where = " AND ".join(conditions)
        with self._errors("read"):
            query = self._table.search(vector, vector_column_name="vector").distance_type("dot").limit(top)
            if where:
                query = query.where(where, prefilter=True)
            if self._table.count_rows(where or None) <= EXACT_ROWS:
                query = query.bypass_vector_index()
            else:
                query = query.nprobes(_EVERY_PARTITION).refine_factor(_COMPARED_AGAIN)
            found = query.select([*_HIT_COLUMNS, "vector", "_distance"]).to_arrow()
            rows, scores = found.select(_HIT_COLUMNS).to_pylist(), scores_of(self._vectors(found), vector)
        hits = [Hit(**row, score=score, paths=(row["path"],)) for row, score in zip(rows, scores, strict=True)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))

    def stamps(self) -> dict[str, tuple[int, int, str]]:
        """Size, time and id of each path."""
        rows = self._rows(["path", "size", "mtime_ns", "id"])
        return {row["path"]: (row["size"], row["mtime_ns"], row["id"]) for row in rows}

    def not_stored(self) -> list[str]:
        """The ids of rows whose embedding is the model's, each once."""
        where = f"NOT {_STORED}" if self._is_marked else ""
        return sorted({row["id"] for row in self._rows(["id"], where)})

    def all_rows(self, columns: Sequence[str]) -> tuple[list[dict[str, Any]], Embeddings]:
        """These columns of every row, and the embeddings (n, D)."""
        with self._errors("read"):
            found = self._table.search().select([*columns, "vector"]).limit(None).to_arrow()
            return found.select(columns).to_pylist(), self._vectors(found)

    def _vectors(self, found: Any) -> Embeddings:
        if "path" in found.column_names and not all(found["path"].to_pylist()):  # some flipped bits of a manifest
            raise ValueError("a row has no file")
        vectors: Embeddings = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return vectors.reshape(len(found), self._dim)

    def photos(self, keys: Sequence[str]) -> list[Photo]:
        """All rows of these contents."""
        rows = self._rows(self._schema.names, one_of("id", keys)) if keys else []
        return [Photo(**{**row, "vector": np.array(row["vector"], np.float32)}) for row in rows]

    def with_ids(self, keys: Sequence[str]) -> dict[str, Photo]:
        """One row of each content that is there, by its id: of copies the first by path."""
        return {photo.id: photo for photo in sorted(self.photos(keys), key=lambda photo: photo.path, reverse=True)}

    def one(self, key: str, column: str) -> list[Any]:
        """The values in a column of all rows with that id; `DistilvlError` if there is none."""
        found = self._rows([column], has_id(key))
        if not found:
            raise DistilvlError(f"no photograph has the id {key}.", "It may have been deleted; search again.")
        return [row[column] for row in found]

    def paths(self, keys: Sequence[str], conditions: Sequence[str]) -> dict[str, list[str]]:
        """The files with each of these contents that meet all `conditions`, sorted."""
        paths: dict[str, list[str]] = {}
        for row in self._rows(["id", "path"], " AND ".join([one_of("id", keys), *conditions])):
            paths.setdefault(row["id"], []).append(row["path"])
        return {key: sorted(found) for key, found in paths.items()}

    def some_paths(self, most: int, condition: str = "") -> list[str]:
        """The paths of at most so many files."""
        return [row["path"] for row in self._rows(["path"], condition, most)]

    def _rows(self, columns: list[str], where: str = "", most: int | None = None) -> list[dict[str, Any]]:
        with self._errors("read"):
            query = self._table.search().select(columns).limit(most)
            found: list[dict[str, Any]] = (query.where(where) if where else query).to_arrow().to_pylist()
        return found

    def write(self, photos: Sequence[Photo], *, replacing: bool) -> None:
        """Add rows, all in one commit; with `replacing`, in the place of those with the same path."""
        rows = self._arrow.Table.from_pylist([vars(photo) for photo in photos], schema=self._schema)
        with self._errors("write to"):
            if replacing:
                merge = self._table.merge_insert("path").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(rows)
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

        Takes what it returned the last time, 0 before: the number of rows that the index in place was made for.
        """
        rows = len(self)
        if rows <= EXACT_ROWS or rows <= 2 * trained_rows:
            return trained_rows
        from lancedb.index import IvfSq

        with self._errors("write to"):
            config = IvfSq(distance_type="dot", num_partitions=max(1, rows // _ROWS_A_PARTITION))
            self._table.create_index("vector", config=config)
        return rows

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """LanceDB's errors of disks and damaged files, as one line."""
        try:
            yield
        except BaseException as error:  # a panic of its Rust is no Exception everywhere
            if not (
                isinstance(error, OSError | RuntimeError | ValueError) or type(error).__module__.startswith("pyo3")
            ):
                raise
            message = f"cannot {doing} the index {self.index}: {one_line(error, 300)}."
            remedy = "Check the disk's space and permissions and run the command again; "
            raise UnavailableError(message, f"{remedy}if the index is damaged, --rebuild.") from error
