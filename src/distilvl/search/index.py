"""`Index`: photographs of one or several folders, searched with one model."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path, PurePath

import numpy as np

from distilvl.data.left_out import LEFT_OUT_NAME, LeftOut, all_left_out, read_left_out
from distilvl.data.listing import on_disk
from distilvl.errors import DistilvlError, OptionError
from distilvl.io.files import make_folder
from distilvl.io.leases import LOCK_NAME, only_writer
from distilvl.models.encoder import Encoder, ModelInfo, Rows, is_same_model, load_encoder
from distilvl.search.filters import below, between, has_id, note_folder, nothing_to_index
from distilvl.search.query import ImageQuery, given_row, nearest_pictures, query_row, require_both, require_types
from distilvl.search.records import ABOUT_NAME, About, Hit, Unreadable, UpdateReport
from distilvl.search.table import PhotoTable
from distilvl.search.update import Update
from distilvl.teachers.base import Teacher

MOST_HITS = 1_000_000
"""More are refused: they would be copied, not looked at."""

_PATHS_LOOKED_AT, _FOLDERS_SHOWN = 1000, 5


class Index:
    """An index on disk; made by `Index.open` or `Index.create`.

    Args:
        path: its folder.
        about: what the folder says of it.
        encoder: the model, if it is loaded already.
        spec: where the model is now, if not where the index says.
    """

    def __init__(self, path: Path, about: About, encoder: Encoder | None = None, spec: str = "") -> None:
        self.path, self._about = path, about
        self._stamp: tuple[int, int, int] | None = None
        self._encoder, self._spec, self._loading = encoder, spec or about.model.spec, threading.Lock()
        if encoder is not None:
            self._require_same(encoder)
        self._table = PhotoTable(path, about.model.dim)

    @classmethod
    def open(cls, path: str | Path, model: str | Path | Teacher | None = None) -> Index:
        """The index in a folder that is there.

        Args:
            path: the folder.
            model: a spec or an open model, if the index's own has moved; a spec is loaded when it is first needed.
                An open one is called from the threads that search; `Encoder(model)` takes one call at a time.

        Raises:
            DistilvlError: not an index, or `model` is open and is not the one the index was made with.
        """
        folder = on_disk(Path(path)).resolve()
        about = About.load(folder)
        if model is None or isinstance(model, str | Path):
            return cls(folder, about, spec="" if model is None else str(model))
        return cls(folder, about, _encoder(model))

    @classmethod
    def create(cls, path: str | Path, model: str | Path | Teacher, *, rebuild: bool = False) -> Index:
        """The index in a folder, made if it is not there; the model is loaded and compared with the index's own.

        Args:
            path: the folder.
            model: a spec or an open model.
            rebuild: begin anew with this model, whatever the folder holds of an index; what was begun so with the
                same model, and no update has ended since, continues.

        Raises:
            DistilvlError: the folder holds something else, or another model's rows and not `rebuild`.
        """
        folder = on_disk(Path(path)).resolve()
        encoder = _encoder(model)
        about = folder / ABOUT_NAME
        if about.is_file() and not rebuild:
            return cls(folder, About.load(folder), encoder)
        taken = DistilvlError(f"{folder} is there and is no index.", "Choose another folder for the index.")
        if folder.exists() and not folder.is_dir():
            raise taken
        make_folder(folder)
        with only_writer(folder):
            # Looked for again: another process may have made it since.
            if not about.is_file() and any(entry.name != LOCK_NAME for entry in folder.iterdir()):
                raise taken
            goes_on = _is_unfinished(folder, encoder.info) if rebuild else about.is_file()
            if not goes_on:
                # In this order: killed in between, what remains is an empty index of the old model, never a mixed one.
                PhotoTable.remove(folder)
                Unreadable.remove(folder)
                (folder / LEFT_OUT_NAME).unlink(missing_ok=True)
                About(encoder.info, rebuilding=rebuild).save(folder)
            return cls(folder, About.load(folder), encoder)

    @property
    def model(self) -> ModelInfo:
        """The model whose rows the index holds; nothing is loaded."""
        return self._about.model

    @property
    def folders(self) -> list[str]:
        """What was indexed: absolute, with `/`."""
        return list(self._now().folders)

    @property
    def left_out(self) -> LeftOut:
        """What was passed over in these folders when each was indexed last, by reason; names are absolute paths."""
        return all_left_out(read_left_out(self.path))

    @property
    def encoder(self) -> Encoder:
        """The model, loaded on first use.

        Raises:
            DistilvlError: it cannot be loaded, or is not the one the index was made with.
        """
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self._table)

    def update(self, folder: str | Path, *, include_hidden: bool = False) -> UpdateReport:
        """Take in the new and changed pictures of `folder` and let go of those that are not there any more.

        Photographs of other folders stay. Stopped or killed at any moment, the next update continues. Only one
        process at a time does this; a second waits. What is passed over is told by the report, and by `left_out`.

        Args:
            folder: the photographs.
            include_hidden: look into hidden folders too, and into those of a NAS or a waste bin.

        Raises:
            DistilvlError: no such folder; nothing in it that can be indexed; none of the pictures that it had; a full
                disk.
        """
        place = on_disk(Path(folder)).resolve()
        with only_writer(self.path):
            about = self._load_about()
            unreadable = Unreadable(self.path)
            update = Update(place, self._table, unreadable, lambda: self.encoder, include_hidden=include_hidden)
            update.look()
            # Before the first row: what is found in the folder is to be found by its name too.
            if about.cover(place.as_posix()):
                about.save(self.path)
            report = update.run()
            # Also after a run with nothing to do: the one before may have been killed just short of this.
            trained = self._table.train(about.trained_rows)
            if report.added or report.changed or report.deleted or trained != about.trained_rows:
                self._table.tidy()
            if trained != about.trained_rows or about.rebuilding:
                about.trained_rows, about.rebuilding = trained, False
                about.save(self.path)
            self._about = about
            note_folder(self.path, place.as_posix(), report.left_out)
        if update.is_empty:
            raise nothing_to_index(place, report.left_out)
        return report

    def search(
        self,
        text: str | None = None,
        image: ImageQuery | None = None,
        *,
        like: str | None = None,
        vector: Rows | None = None,
        weight: float | None = None,
        top: int = 10,
        folder: str | Path | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
        copies: bool = False,
    ) -> list[Hit]:
        """The pictures most similar to a text, a picture, or both; copies of one picture are one hit.

        Args:
            text: what they should show.
            image: a picture they should be like: pixels, encoded bytes, or a file.
            like: the same, by the id of an indexed photograph, which is then left out; not together with `image`.
            vector: a query of the model's space (D,) instead of all these; it is made a unit row.
            weight: of text and picture together, the text's share (a half if not given): the query is the weighted sum
                of their unit rows. Not without both.
            top: how many.
            folder: only below this folder; absolute, or relative to an indexed one.
            since: only from the beginning of this day, month, year or second on.
            until: only up to the end of it.
            copies: each file is a hit of its own.

        Returns:
            The best first; fewer than `top` where fewer meet the conditions.

        Raises:
            DistilvlError: nothing to search for, an unknown id, a bad date, weight or picture, a folder that is not in
                the index, a value of another type; another process has made the index anew with another model.
        """
        require_types(text, top, folder, since, until)
        about = self._now()
        if not 1 <= top <= MOST_HITS:
            raise OptionError("top", f"top is {top}.", f"Ask for 1 to {MOST_HITS:,} photographs.")
        conditions = between(since, until)
        if folder is not None:
            conditions.append(below(str(folder), about.folders))
        if like is not None and copies:
            conditions.append(f"NOT ({has_id(like)})")
        require_both(weight, text, image, like)
        if vector is None:
            query = query_row(lambda: self.encoder, self._row_of, text, image, like, weight)
        else:
            query = given_row(vector, about.model.dim)
        if copies:
            hits = self._table.nearest(query, conditions, top)
        else:
            hits = nearest_pictures(self._table, query, conditions, top, without=like)
        if folder is not None and not hits:
            self._require_folder(str(folder), about.folders)
        return hits

    def thumbnail(self, key: str) -> bytes:
        """A JPEG of the photograph with that id, at most 256 pixels wide or high; `DistilvlError` if there is none."""
        data: bytes = self._table.one(key, ["thumbnail"])[0]["thumbnail"]
        return data

    def paths(self, key: str) -> list[str]:
        """The files with that id, absolute, with `/`; `DistilvlError` if there is none."""
        return sorted(row["path"] for row in self._table.one(key, ["path"]))

    def _require_folder(self, folder: str, roots: list[str]) -> None:
        """`OptionError` if the index has photographs, but none in this folder."""
        if not len(self) or self._table.count([below(folder, roots)]):
            return
        others = {PurePath(path).parent.as_posix() for path in self._table.some_paths(_PATHS_LOOKED_AT)}
        shown = ", ".join(sorted(others)[:_FOLDERS_SHOWN])
        message = f"the index has no photograph in a folder {folder[:200]!r}."
        raise OptionError(
            "folder", message, f"It has some in {shown}{', ...' if len(others) > _FOLDERS_SHOWN else ''}."
        )

    def _row_of(self, key: str) -> Rows:
        return np.asarray(self._table.one(key, ["vector"])[0]["vector"], dtype=np.float32)

    def _now(self) -> About:
        """What the folder says of itself by now; read only when it was written again."""
        stamp = About.stamp(self.path)
        if stamp != self._stamp:
            self._about, self._stamp = self._load_about(), stamp
        return self._about

    def _load_about(self) -> About:
        """Read what the folder says of itself, and see the table as it is now: another process may have begun anew."""
        about = About.load(self.path)
        if not is_same_model(about.model, self._about.model):
            raise DistilvlError(f"{self.path} was made anew with another model meanwhile.", "Open it again.")
        self._table.refresh()
        return about

    def _load(self) -> Encoder:
        if not self._spec:
            raise made_in_python(self.path)
        try:
            encoder = load_encoder(self._spec)
        except DistilvlError as error:
            raise DistilvlError(
                f"the model of {self.path} cannot be loaded: {error}", "If it has moved, say where with --model."
            ) from error
        self._require_same(encoder)
        return encoder

    def _require_same(self, encoder: Encoder) -> None:
        own = self._about.model
        if not is_same_model(own, encoder.info):
            raise DistilvlError(
                f"{self.path} was made with {_named(own)}, not with {_named(encoder.info)}.",
                "Give that model, choose another folder for the index, or make it anew with --rebuild.",
            )


def _is_unfinished(folder: Path, model: ModelInfo) -> bool:
    """Whether an index was begun anew with this model, no update has ended since, and what there is can be read."""
    try:
        about = About.load(folder)
        if not (about.rebuilding and is_same_model(about.model, model)):
            return False
        PhotoTable(folder, model.dim).stamps()
    except DistilvlError:
        return False
    return True


def _encoder(model: str | Path | Teacher) -> Encoder:
    if isinstance(model, str | Path):
        return load_encoder(model)
    return model if isinstance(model, Encoder) else Encoder(model, one_call_at_a_time=False)


def made_in_python(path: Path) -> DistilvlError:
    """The error of an index whose model was an object, so that it cannot be loaded again by a spec."""
    return DistilvlError(f"{path} was made with a model that was open in Python.", "Give it again.")


def _named(model: ModelInfo) -> str:
    return f"model {model.name!r} revision {model.revision!r} of width {model.dim}"
