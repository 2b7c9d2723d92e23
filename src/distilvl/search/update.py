"""Bring a table up to date with a folder: read what is new or changed, encode what is not known, let go of the rest.

Killed at any moment, the same update continues: rows are committed in blocks, and those of deleted files go last.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from distilvl.data.folders import UNREADABLE_FOLDER
from distilvl.data.left_out import LEFT_OUT_NAME, LeftOut
from distilvl.errors import DistilvlError
from distilvl.io.files import remove_partials
from distilvl.io.prefetch import Prefetcher
from distilvl.io.progress import progress
from distilvl.models.encoder import Encoder, ModelInfo, is_same_model
from distilvl.search.about import (
    REBUILDING_NAME,
    UNREADABLE_NAME,
    About,
    StoredTeacher,
    Unreadable,
    UpdateReport,
    note_folder,
    nothing_to_index,
    prefix,
)
from distilvl.search.photographs import PhotoFile, Picture, list_files, read_picture
from distilvl.search.quick import QUICK_NAME, write_quick
from distilvl.search.stored import PhotoEncoder, StoredEmbeddings
from distilvl.search.table import Photo, PhotoTable
from distilvl.students.folder import BASIS_NAME

BATCH = 64  # pictures that the model encodes at once, unless they are large
_PIXELS_A_BATCH = 1 << 27  # 400 MB of RGB
_PIXELS_AHEAD = 2 * _PIXELS_A_BATCH
_THREADS = min(4, os.cpu_count() or 1)
# What a kill can cost: so many pictures, and, of a slow model, so many seconds.
COMMIT_ROWS, _COMMIT_S = 512, 10.0
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}


def update_table(
    about: About, table: PhotoTable, load: Callable[[], Encoder], folder: Path, *, include_hidden: bool
) -> UpdateReport:
    """Take the pictures of `folder` (absolute and resolved) into the table of an index; see `Index.update`."""
    index, home, stored = table.index, table.folder, None
    remove_partials(index)
    remove_partials(home)
    if not about.rebuilding:
        _remove_replaced(index, about)
    if about.stored is not None:
        stored = StoredEmbeddings.of_index(index, home, about.stored, about.model.dim)
        table.mark_stored()
    update = Update(folder, table, Unreadable(home), load, stored, include_hidden=include_hidden)
    # Before the first row: what is found in the folder is to be found by its name too.
    if about.cover(folder.as_posix()):
        about.save(index)
    report = update.run()
    # Also after a run with nothing to do: the one before may have been killed just short of this.
    trained = table.train(about.trained_rows)
    if report.added or report.changed or report.deleted or report.stored or trained != about.trained_rows:
        table.tidy()
    note_folder(home, folder.as_posix(), report.left_out)
    report.total, report.total_stored = len(table), table.count_stored()
    if update.is_empty:
        raise nothing_to_index(folder, report.left_out)
    write_quick(table)
    if trained != about.trained_rows or about.rebuilding:
        is_new, about.trained_rows, about.rebuilding = about.rebuilding, trained, False
        about.save(index)  # from here on this is what answers
        if is_new:
            (index / REBUILDING_NAME).unlink(missing_ok=True)
            _remove_replaced(index, about)
    return report


def forget_folder(about: About, table: PhotoTable, folder: str) -> int:
    """Let the table and all else forget the photographs of an indexed folder; gives how many files they were."""
    about.drop(folder)
    inside = prefix(folder)
    gone = sorted(path for path in table.stamps() if path.startswith(inside))
    table.delete(gone)
    unreadable = Unreadable(table.folder)
    for path in [path for path in unreadable if path.startswith(inside)]:
        del unreadable[path]
    unreadable.save()
    note_folder(table.folder, folder, None)
    about.save(table.index)  # last: stopped in between, the same command goes on
    table.tidy()
    write_quick(table)
    return len(gone)


def begin_anew(index: Path, model: ModelInfo, stored: StoredTeacher | None) -> None:
    """Begin what is to take an index's place, if that was not begun with these already and can be read."""
    with contextlib.suppress(DistilvlError):
        about = About.load(index, rebuilding=True)
        if is_same_model(about.model, model) and about.stored == stored:
            PhotoTable(index, model.dim, home=about.home).stamps()
            return
    now = None
    with contextlib.suppress(DistilvlError):  # one that is damaged answers nothing
        now = About.load(index)
    (index / REBUILDING_NAME).unlink(missing_ok=True)
    home = "" if now is None else now.other_home
    empty_index(index / home)
    About(model, rebuilding=True, home=home).save(index)


def _remove_replaced(index: Path, about: About) -> None:
    """Remove what the index that `about` tells of took the place of; not what is being made to take its own."""
    path = index / REBUILDING_NAME
    if path.exists():
        with contextlib.suppress(DistilvlError):
            if About.load(index, rebuilding=True).home != about.home:
                return
        path.unlink()
    empty_index(index / about.other_home)


def empty_index(home: Path) -> None:
    """Remove all that an index holds but what it says of itself."""
    PhotoTable.remove(home)
    for name in (QUICK_NAME, UNREADABLE_NAME, LEFT_OUT_NAME, BASIS_NAME):
        (home / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        home.rmdir()


class Update:
    """One update of a table from a folder (absolute and resolved), which are compared at once; `run` does the rest.

    Files in `unreadable` are not tried again. `load` gives the model; it is called only if a file must be read. What
    `stored` has embeddings of gets these, rows that are in the table as well.

    `DistilvlError`: the folder cannot be listed; it has no picture, or none left of those in the table.
    """

    def __init__(
        self, folder: Path, table: PhotoTable, unreadable: Unreadable, load: Callable[[], Encoder],
        stored: StoredEmbeddings | None = None, *, include_hidden: bool = False,
    ) -> None:  # fmt: skip
        self._folder, self._inside = folder, prefix(folder.as_posix())
        self._table, self._unreadable, self._load, self._stored = table, unreadable, load, stored
        scan = LeftOut()
        files = self._files = list_files(folder, include_hidden=include_hidden, left_out=scan)
        names = {reason: [(folder / name).as_posix() for name in held] for reason, held in scan.names.items()}
        self._report = UpdateReport(found=len(files), left_out=LeftOut(dict(scan.counts), names))
        stamps = table.stamps()
        self._known = {path for path in stamps if path.startswith(self._inside)}
        self._ids = {key for _, _, key in stamps.values()}
        self._undecodable: set[str] = set()
        if not files and self._known:
            message = f"{folder} has no image any more, but {len(self._known)} of it are in the index."
            raise DistilvlError(message, "Is its disk mounted? If they are really gone, delete the index.")
        if not files:
            raise nothing_to_index(folder, self._report.left_out)
        self._todo = [file for file in files if not self._is_done(file, stamps)]
        self._report.unchanged = len(files) - len(self._todo) - self._report.remembered

    def run(self) -> UpdateReport:
        """Read, encode, write and delete; `DistilvlError` for a model that fails, or a full disk."""
        if self._stored is not None:
            self._exchange(self._stored)
        if self._todo:
            self._take_in(self._todo)
        self._let_go({file.path for file in self._files})
        return self._report

    @property
    def is_empty(self) -> bool:
        """Whether, after `run`, nothing of the folder is in the table."""
        return not (self._known or self._report.added)

    def _is_done(self, file: PhotoFile, stamps: dict[str, tuple[int, int, str]]) -> bool:
        size, mtime_ns, _, kind = self._unreadable.get(file.path, (-1, -1, "", ""))
        if (size, mtime_ns) == file.stamp:
            self._report.remembered += 1
            self._report.left_out.add(kind, file.path)
            # A run that was killed before its end may have left it the row of what it was.
            self._undecodable.add(file.path)
            return True
        return file.path in stamps and stamps[file.path][:2] == file.stamp

    def _take_in(self, files: list[PhotoFile]) -> None:
        pictures: Prefetcher[PhotoFile, Picture] = Prefetcher(
            lambda file: read_picture(file, self._ids), workers=_THREADS, window=2 * BATCH,
            cost=lambda picture: picture.pixels, budget=_PIXELS_AHEAD,
        )  # fmt: skip
        encoder = PhotoEncoder(self._load, self._stored)
        started = time.monotonic()
        with progress("indexing", len(files)) as ticker:
            block = _Block(encoder, self._table, self._known, self._report)
            for picture in pictures.results(files):
                if picture.reason:
                    self._refuse(picture)
                else:
                    self._unreadable.pop(picture.file.path, None)
                    pictures.release(block.put(picture))
                if block.is_due:
                    pictures.release(block.commit(self._ids))
                    self._unreadable.save()
                    block = _Block(encoder, self._table, self._known, self._report)
                ticker.advance()
            block.commit(self._ids)
        self._report.seconds = time.monotonic() - started

    def _exchange(self, stored: StoredEmbeddings) -> None:
        """Give rows with an embedding of the model the one that the store holds by now."""
        lacking = self._table.not_stored()
        for start in range(0, len(lacking), COMMIT_ROWS):
            if held := stored.of(lacking[start : start + COMMIT_ROWS]):
                photos = self._table.photos(list(held))
                rows = [replace(photo, vector=held[photo.id], stored=True) for photo in photos]
                self._table.write(rows, replacing=True)
                self._report.stored += len(held)

    def _refuse(self, picture: Picture) -> None:
        """A file without a picture; one that the disk did not give is tried again, and keeps its row till then."""
        path = picture.file.path
        self._report.refuse(path, picture.reason, picture.kind)
        if picture.id:
            self._unreadable[path] = (*picture.file.stamp, picture.reason, picture.kind)
            self._undecodable.add(path)

    def _let_go(self, there: set[str]) -> None:
        """Delete the rows of files that are gone or undecodable, and forget what was remembered of those."""
        root = PurePosixPath(self._folder.as_posix())
        closed = {PurePosixPath(name): True for name in self._report.left_out.names.get(UNREADABLE_FOLDER, [])}
        lost = self._known - there
        gone = (lost - _unlisted(lost, root, closed)) | (self._known & self._undecodable)
        self._table.delete(sorted(gone))
        self._known -= gone
        self._report.deleted = len(gone)
        remembered = {path for path in self._unreadable if path.startswith(self._inside)} - there
        for path in remembered - _unlisted(remembered, root, closed):
            del self._unreadable[path]
        self._unreadable.save()


def _unlisted(paths: Iterable[str], root: PurePosixPath, closed: dict[PurePosixPath, bool]) -> set[str]:
    """Those in a folder below `root` which cannot be listed, now or before; `closed` has what is known of folders."""

    def is_closed(folder: PurePosixPath) -> bool:
        if folder != root and root not in folder.parents:
            return False
        if folder not in closed:
            try:
                with os.scandir(folder):
                    closed[folder] = False
            except OSError as error:
                closed[folder] = error.errno not in _NOT_THERE
        return closed[folder]

    return {path for path in paths if any(map(is_closed, PurePosixPath(path).parents))}


class _Block:
    """Rows that will be one commit to `table`; `known` are the paths that it has."""

    def __init__(self, encoder: PhotoEncoder, table: PhotoTable, known: set[str], report: UpdateReport) -> None:
        self._encoder, self._table, self._known, self._report = encoder, table, known, report
        self._begun = time.monotonic()
        self._batch: dict[str, Picture] = {}
        self._photos: dict[str, Photo] = {}
        self._copies: list[Picture] = []

    @property
    def is_due(self) -> bool:
        """Whether there is enough, or it has been long enough, to commit."""
        rows = len(self._batch) + len(self._photos) + len(self._copies)
        return rows >= COMMIT_ROWS or (rows > 0 and time.monotonic() - self._begun >= _COMMIT_S)

    def put(self, picture: Picture) -> int:
        """Take in a picture; gives the pixels that are no longer held."""
        if picture.image is None or picture.id in self._batch or picture.id in self._photos:
            self._copies.append(replace(picture, image=None))
            return picture.pixels
        self._batch[picture.id] = picture
        if len(self._batch) == BATCH or sum(one.pixels for one in self._batch.values()) >= _PIXELS_A_BATCH:
            return self._encode()
        return 0

    def commit(self, ids: set[str]) -> int:
        """Write all rows, add their ids to `ids`; gives the pixels that are no longer held."""
        freed = self._encode()
        there = self._table.with_ids(sorted({copy.id for copy in self._copies} - self._photos.keys())) | self._photos
        rows = list(self._photos.values())
        for copy in self._copies:
            # Its double may have been replaced since it was seen.
            rows += [there[copy.id].at(copy.file)] if copy.id in there else self._anew(copy.file)
        replaced = sum(row.path in self._known for row in rows)
        if rows:
            self._table.write(rows, replacing=replaced > 0)
        self._report.changed += replaced
        self._report.added += len(rows) - replaced
        ids.update(row.id for row in rows)
        return freed

    def _encode(self) -> int:
        pictures, self._batch = list(self._batch.values()), {}
        if not pictures:
            return 0
        self._photos |= {photo.id: photo for photo in self._embedded(pictures)}
        return sum(picture.pixels for picture in pictures)

    def _embedded(self, pictures: list[Picture]) -> list[Photo]:
        found = self._encoder.encode(pictures)
        photos = [Photo.of(picture, *found[picture.id]) for picture in pictures]
        self._report.stored += sum(photo.stored for photo in photos)
        self._report.encoded += sum(not photo.stored for photo in photos)
        return photos

    def _anew(self, file: PhotoFile) -> list[Photo]:
        """The row of one file, by itself; none if it is bad by now."""
        picture = read_picture(file, set())
        if picture.image is None:
            self._report.refuse(file.path, picture.reason, picture.kind)
            return []
        return self._embedded([picture])
