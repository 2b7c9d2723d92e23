"""`Index`: photographs of one or several folders, searched with one model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np

from distilvl.data.left_out import LeftOut
from distilvl.data.listing import on_disk
from distilvl.errors import DistilvlError, OptionError, UnavailableError
from distilvl.io.files import make_folder
from distilvl.io.leases import only_writer
from distilvl.models import Encoder, ModelInfo, is_same_model, load_encoder
from distilvl.models.static_texts import static_texts
from distilvl.search.about import (
    ABOUT_NAME,
    REBUILDING_NAME,
    About,
    StoredTeacher,
    UpdateReport,
    made_in_python,
    require_place,
)
from distilvl.search.query import ImageQuery, below, between, check_query, nearest_pictures, query_embedding
from distilvl.search.quick import QuickTable
from distilvl.search.stored import Features, check_features, keep_basis
from distilvl.search.table import Embeddings, Hit, PhotoTable, has_id
from distilvl.search.update import begin_anew, empty_index, forget_folder, update_table
from distilvl.teachers.base import Teacher

_PATHS_NAMED, _FOLDERS_SHOWN = 1000, 5
T = TypeVar("T")


class Index:
    """An index on disk; made by `Index.open` or `Index.create`."""

    def __init__(self, path: Path, about: About, encoder: Encoder | None = None, spec: str = "") -> None:
        self.path, self._about = path, about
        self._stamp: tuple[int, int, int] | None = None
        self._encoder, self._spec, self._loading = encoder, spec or about.model.spec, threading.Lock()
        if encoder is not None:
            self._require_same(encoder)
        self._quick: QuickTable | None = None
        self._texts: Encoder | None = None
        self._table = self._open_table()

    def __repr__(self) -> str:
        model = self.model
        return f"Index({str(self.path)!r}, {len(self):,} photographs, model {model.name!r}, dim {model.dim})"

    @classmethod
    def open(cls, path: str | Path, model: str | Path | Teacher | None = None) -> Index:
        """The index in the folder `path`.

        `model` is a spec or an open model, if the index's own has moved; a spec is loaded when it is first needed. An
        open one is called from the threads that search; `Encoder(model)` takes one call at a time. `DistilvlError`: not
        an index, or `model` is open and is not the one the index was made with.
        """
        folder = on_disk(Path(path)).resolve()
        about = About.load(folder)
        if isinstance(model, str | Path | None):
            return cls(folder, about, spec=str(model or ""))
        return cls(folder, about, _encoder(model))

    @classmethod
    def create(
        cls, path: str | Path, model: str | Path | Teacher, *, rebuild: bool = False, features: Features | None = None
    ) -> Index:
        """The index in the folder `path`, made if it is not there; `model` is a spec or an open one.

        The model is loaded and compared with the index's own. With `rebuild` the index begins anew, whatever the folder
        holds of one, which answers until an update has ended; what was begun so with the same model and features, and
        no update has ended since, continues. For
        `features` see `use_features`. `DistilvlError`: the folder holds something else, or another model's embeddings
        and not `rebuild`; or features of another teacher than the model's.
        """
        folder = on_disk(Path(path)).resolve()
        encoder = _encoder(model)
        if features is None:
            return cls._create(folder, encoder, rebuild, None)
        stored, basis = check_features(features, encoder)
        index = cls._create(folder, encoder, rebuild, stored)
        index._keep(stored, basis)
        return index

    @classmethod
    def _create(cls, folder: Path, encoder: Encoder, rebuild: bool, stored: StoredTeacher | None) -> Index:
        about = folder / ABOUT_NAME
        if about.is_file() and not rebuild:
            return cls(folder, About.load(folder), encoder)
        require_place(folder)
        make_folder(folder)
        with only_writer(folder):
            require_place(folder)  # another process may have made it since
            if rebuild := rebuild and about.is_file():
                begin_anew(folder, encoder.info, stored)
            elif not about.is_file():
                empty_index(folder)
                About(encoder.info).save(folder)
            return cls(folder, About.load(folder, rebuilding=rebuild), encoder)

    @property
    def model(self) -> ModelInfo:
        """The model whose embeddings the index holds; nothing is loaded."""
        return self._about.model

    @property
    def stored(self) -> StoredTeacher | None:
        """The feature store that photographs have their embeddings from, where it holds them; none: all are encoded."""
        return self._now().stored

    @property
    def folders(self) -> list[str]:
        """What was indexed: absolute, with `/`."""
        return list(self._now().folders)

    @property
    def left_out(self) -> LeftOut:
        """What was left out of these folders when each was indexed last, by reason; names are absolute paths."""
        return self._now().left_out(self.path)

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use; `DistilvlError` if that fails, or it is not the one of the index."""
        with self._loading:
            if self._encoder is not None:
                return self._encoder
            if not self._spec:
                raise made_in_python(self.path)
            try:
                encoder = self._load_encoder()
            except DistilvlError as error:
                message = f"the model of {self.path} cannot be loaded: {error}"
                raise DistilvlError(message, "If it has moved, say where with --model.") from error
            self._require_same(encoder)
            self._encoder = encoder
            return encoder

    def _of_texts(self) -> Encoder:
        """What encodes queries in words: of a student with a table of words that alone, without PyTorch."""
        texts = self._texts
        if self._encoder is None and texts is None and (model := static_texts(self._spec)) is not None:
            texts = Encoder(model, self._spec)
            if not is_same_model(texts.info, self._about.model):
                texts = None
            self._texts = texts
        return self.encoder if self._encoder is not None or texts is None else texts

    def _load_encoder(self) -> Encoder:
        """The model where it was, or, of an index in the folder of its model, where that has moved to."""
        own, spec = self._about.model, Path(self._spec)
        if self._spec == own.spec and spec.is_absolute() and not spec.exists():
            with contextlib.suppress(DistilvlError):
                encoder = load_encoder(self.path.parent)
                if is_same_model(encoder.info, own):
                    return encoder
        return load_encoder(self._spec)

    def __len__(self) -> int:
        return self._read(lambda table: len(self._quick_of(table) or table))

    def use_features(self, features: Features) -> None:
        """From the next update on, give photographs the embeddings of the model's teacher that a feature store holds.

        Those that it lacks are encoded by the model; both are in one space, if the model learnt from that teacher. The
        index remembers the store. `DistilvlError`: not a store, another dimension than the model's, another teacher
        than the one of the model's run, as far as that is known, or than the one of the index.
        """
        self._keep(*check_features(features, self.encoder))

    def _keep(self, stored: StoredTeacher, basis: Path | None) -> None:
        with only_writer(self.path):
            self._about = about = self._load_about()
            known = about.stored
            if known is not None and (known.teacher, known.revision) != (stored.teacher, stored.revision):
                what = f"{self.path} has embeddings of {known}, not of {stored}."
                raise DistilvlError(what, "Give a store of that teacher, or make the index anew with --rebuild.")
            about.stored = stored
            keep_basis(self._table.folder, basis)
            about.save(self.path)

    def update(self, folder: str | Path, *, include_hidden: bool = False) -> UpdateReport:
        """Take in the new and changed pictures of `folder` and let go of those that are not there any more.

        Photographs of other folders stay. Stopped or killed at any moment, the next update continues. Only one
        process at a time does this; a second waits. What is left out is told by the report, and by `left_out`.
        With `include_hidden` hidden folders are read too, and those of a NAS or a waste bin.

        `DistilvlError`: no such folder; nothing to index in it; none of the pictures that it had; a full disk.
        """
        place = on_disk(Path(folder)).resolve()
        with only_writer(self.path):
            self._about = about = self._load_about()
            return update_table(about, self._table, lambda: self.encoder, place, include_hidden=include_hidden)

    def forget(self, folder: str | Path) -> int:
        """Let go of an indexed folder and all its photographs, whether it is still there; gives how many files.

        `DistilvlError`: none of the indexed `folders`; a full disk.
        """
        with only_writer(self.path):
            self._about = about = self._load_about()
            place = on_disk(Path(folder)).resolve().as_posix()
            return forget_folder(about, self._table, place)

    def search(
        self, text: str | None = None, image: ImageQuery | None = None, *,
        like: str | None = None, vector: Embeddings | None = None, minus: str | None = None,
        weight: float | None = None, top: int = 10,
        folder: str | Path | None = None, since: str | date | None = None, until: str | date | None = None,
        copies: bool = False,
    ) -> list[Hit]:  # fmt: skip
        """The pictures most similar to a text, a picture, or both; copies of one picture are one hit.

        Args:
            text: what they should show.
            image: a picture they should be like: pixels, encoded bytes, or a file.
            like: the same, by the id of an indexed photograph, which is then left out; not together with `image`.
            vector: a query in the model's space (D,) instead of all these; it is L2-normalised.
            minus: what they should not show, with any of these: half of its embedding is taken away.
            weight: of text and picture together, the text's share (a half if not given): the query is the weighted sum
                of their embeddings. Not without both.
            top: how many, the best first; fewer are found where fewer meet the conditions.
            folder: only below this folder; absolute, or relative to an indexed one.
            since: only from the beginning of this day, month, year or second on.
            until: only up to the end of it.
            copies: each file is a hit of its own.

        Raises:
            DistilvlError: nothing to search for, an unknown id, a bad date, weight or picture, a folder that is not in
                the index, a value of another type; another process has made the index anew with another model.
        """
        check_query(text, image, like, minus, weight, top, folder, since, until)
        about = self._now()
        conditions = between(since, until)
        if folder is not None:
            conditions.append(below(str(folder), about.folders))
        if like is not None and copies:
            conditions.append(f"NOT ({has_id(like)})")
        if vector is not None and np.shape(vector) != (about.model.dim,):
            raise DistilvlError(f"the query has the shape {np.shape(vector)}.", f"It must be ({about.model.dim},).")
        encoder = self._of_texts if image is None else lambda: self.encoder
        query = query_embedding(encoder, self._embedding_of, text, image, like, vector, weight, minus)

        def nearest(table: PhotoTable) -> list[Hit]:
            if copies:
                return table.nearest(query, conditions, top)
            with contextlib.suppress(LookupError):
                if not conditions and (quick := self._quick_of(table)) is not None:
                    return nearest_pictures(quick, query, conditions, top, without=like)
            return nearest_pictures(table, query, conditions, top, without=like)

        hits = self._read(nearest)
        if folder is not None and not hits:
            self._require_folder(str(folder), about.folders)
        return hits

    def _quick_of(self, table: PhotoTable) -> QuickTable | None:
        quick = self._quick  # other threads may put that of another version here meanwhile
        if quick is None or not quick.is_of(table.folder):
            quick = self._quick = QuickTable.read(table.folder)
            if quick is not None:
                table.refresh()  # so that filters and thumbnails know what this finds
        return quick

    def thumbnail(self, key: str) -> bytes:
        """A JPEG of the photograph with that id, at most 256 pixels wide or high; `DistilvlError` if there is none."""
        return bytes(self._read(lambda table: table.one(key, "thumbnail"))[0])

    def paths(self, key: str) -> list[str]:
        """The files with that id, absolute, with `/`; `DistilvlError` if there is none."""
        return sorted(self._read(lambda table: table.one(key, "path")))

    def _require_folder(self, folder: str, roots: list[str]) -> None:
        """`OptionError` if the index has photographs, but none in this folder."""
        if not len(self) or self._table.some_paths(1, below(folder, roots)):
            return
        others = {PurePath(path).parent.as_posix() for path in self._table.some_paths(_PATHS_NAMED)}
        shown = ", ".join(sorted(others)[:_FOLDERS_SHOWN]) + (", ..." if len(others) > _FOLDERS_SHOWN else "")
        message = f"the index has no photograph in a folder {folder[:200]!r}."
        raise OptionError("folder", message, f"It has some in {shown}.")

    def _embedding_of(self, key: str) -> Embeddings:
        return np.asarray(self._read(lambda table: table.one(key, "vector"))[0], dtype=np.float32)

    def _read(self, read: Callable[[PhotoTable], T]) -> T:
        """What `read` finds in the table; in the new one, if another took its place in the middle of it."""
        self._now()
        table = self._table
        try:
            return read(table)
        except UnavailableError:
            self._now()
            if self._table is table:
                raise
            return read(self._table)

    def _now(self) -> About:
        """What the folder says of itself by now; read only when it was written again."""
        stamp = 0, 0, 0
        with contextlib.suppress(OSError):
            status = (self.path / ABOUT_NAME).stat()
            # Every write makes a new file, so that its number tells apart two within one tick of the disk's clock.
            stamp = status.st_mtime_ns, status.st_ino, status.st_size
        if stamp != self._stamp:
            self._about, self._stamp = self._load_about(), stamp
        return self._about

    def _load_about(self) -> About:
        """Read what the folder says of itself, and see the table as it is now: another process may have begun anew."""
        is_begun = self._about.rebuilding and (self.path / REBUILDING_NAME).exists()
        about = About.load(self.path, rebuilding=is_begun)
        if not is_same_model(about.model, self._about.model):
            raise UnavailableError(f"{self.path} was made anew with another model meanwhile.", "Open it again.")
        if about.home != self._about.home:
            self._about = about
            self._table = self._open_table()
        else:
            self._table.refresh()
        return about

    def _open_table(self) -> PhotoTable:
        """The table, opened where it has no quick copy: what is damaged or lost is told at once."""
        # Of what has been indexed before the table is there, or it is lost: an empty one would answer for it.
        about = self._about
        table = PhotoTable(self.path, about.model.dim, home=about.home, new=not about.folders)
        if self._quick_of(table) is None:
            table.open()
        return table

    def _require_same(self, encoder: Encoder) -> None:
        own = self._about.model
        if not is_same_model(own, encoder.info):
            told = "model {!r} revision {!r} of dim {}"
            made, given = (told.format(one.name, one.revision, one.dim) for one in (own, encoder.info))
            remedy = "Give that model, choose another folder for the index, or make it anew with --rebuild."
            raise DistilvlError(f"{self.path} was made with {made}, not with {given}.", remedy)


def _encoder(model: str | Path | Teacher) -> Encoder:
    if isinstance(model, str | Path):
        return load_encoder(model)
    return model if isinstance(model, Encoder) else Encoder(model, one_call_at_a_time=False)
