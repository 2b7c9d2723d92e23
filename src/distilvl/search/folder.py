"""`index_folder`: one call from a folder of photographs to an index that is up to date; what `distilvl index` does."""

from __future__ import annotations

import contextlib
from pathlib import Path

from distilvl.data.left_out import LEFT_OUT_NAME
from distilvl.data.listing import on_disk
from distilvl.errors import DistilvlError
from distilvl.search.index import Index, made_in_python
from distilvl.search.records import ABOUT_NAME, UNREADABLE_NAME, About, UpdateReport
from distilvl.search.table import PhotoTable
from distilvl.teachers.base import Teacher


def index_folder(
    folder: str | Path,
    out: str | Path,
    model: str | Path | Teacher | None = None,
    *,
    rebuild: bool = False,
    include_hidden: bool = False,
) -> UpdateReport:
    """Make or update the index `out` of the photographs in `folder`.

    Args:
        folder: the photographs.
        out: the index's folder.
        model: a spec or an open model; of an index that is there, its own if not given.
        rebuild: begin anew, with another model if one is given.
        include_hidden: look into hidden folders too.

    Raises:
        DistilvlError: as `Index.create` and `Index.update`; or a new index without a model.
    """
    folder, out = on_disk(Path(folder)), on_disk(Path(out))
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    is_new = not (out / ABOUT_NAME).is_file()
    if model is None and is_new:
        raise DistilvlError(f"there is no index {out} yet.", "Say with which model to make it: --model.")
    if model is None and rebuild:
        model = About.load(out).model.spec
        if not model:
            raise made_in_python(out)
    index = Index.open(out) if model is None else Index.create(out, model, rebuild=rebuild)
    try:
        return index.update(folder, include_hidden=include_hidden)
    except DistilvlError:
        if is_new and not len(index):
            _remove(index.path)
        raise


def _remove(index: Path) -> None:
    """Take an index that holds nothing away again."""
    PhotoTable.remove(index)
    for name in (UNREADABLE_NAME, LEFT_OUT_NAME, ABOUT_NAME):
        (index / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        index.rmdir()
