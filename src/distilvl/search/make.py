"""`index_folder`: make an index of a folder of photographs, or bring the one that is there up to date."""

from __future__ import annotations

import contextlib
from pathlib import Path

from distilvl.data.listing import on_disk
from distilvl.errors import DistilvlError
from distilvl.search.about import ABOUT_NAME, About, UpdateReport, made_in_python
from distilvl.search.index import Index
from distilvl.search.stored import Features
from distilvl.search.update import empty_index
from distilvl.teachers.base import Teacher


def index_folder(
    folder: str | Path, out: str | Path, model: str | Path | Teacher | None = None, *,
    rebuild: bool = False, include_hidden: bool = False, features: Features | None = None,
) -> UpdateReport:  # fmt: skip
    """Make or update the index `out` of the photographs in `folder`; what `distilvl index` does.

    `model` is a spec or an open model; of an index that is there, its own if not given. With `rebuild` it begins anew,
    with another model if one is given. `features` are a feature store of the model's teacher (`Index.use_features`); of
    an index that is there, its own if not given, unless it begins anew with a model that is. `DistilvlError`: as
    `Index.create` and `update`; or no model for a new index.
    """
    folder, out = on_disk(Path(folder)), on_disk(Path(out))
    if not folder.is_dir():
        raise DistilvlError(f"there is no folder {folder}.", "Check the path.")
    is_new = not (out / ABOUT_NAME).is_file()
    if model is None and is_new:
        raise DistilvlError(f"there is no index {out} yet.", "Say with which model to make it: --model.")
    if model is None and rebuild:
        about = About.load(out)
        model, known = about.model.spec, about.stored
        if not model:
            raise made_in_python(out)
        features = known.features if features is None and known is not None else features
    if model is not None:
        index = Index.create(out, model, rebuild=rebuild, features=features)
    else:
        index = Index.open(out)
        if features is not None:
            index.use_features(features)
    try:
        return index.update(folder, include_hidden=include_hidden)
    except DistilvlError:
        if is_new and not len(index):  # it holds nothing: taken away again
            empty_index(index.path)
            (index.path / ABOUT_NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                index.path.rmdir()
        raise
