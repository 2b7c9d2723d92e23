"""From `--teacher T` to a store that holds every item of a dataset."""

from __future__ import annotations

from pathlib import Path

from distilvl.data.crops import Views, with_views
from distilvl.data.items import Items, unique_captions, unique_images
from distilvl.data.left_out import NOT_DECODED
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction.arrays import is_array_folder, is_import
from distilvl.extraction.extract import ExtractReport, estimate, extract_features, report_of
from distilvl.extraction.importing import import_arrays, import_features
from distilvl.extraction.ray_engine import Cluster, extract_with_ray
from distilvl.extraction.stored import load_import
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.features.store import FeatureStore
from distilvl.models.loading import is_stored, load_model
from distilvl.pictures import decode_image
from distilvl.teachers.base import PiecewiseTeacher


def prepare_features(
    spec: str,
    dataset: Items,
    out: str | Path,
    *,
    skip_bad: bool = False,
    cluster: Cluster | None = None,
    views: Views | None = None,
    source: str = "",
) -> ExtractReport:
    """A store with the teacher's features of all of `dataset`.

    Args:
        spec: a finished store, or `mean:A,B` or `concat:A,B` of several (used where they lie; `out` stays
            untouched); features to import into `out`: a folder of feature arrays, `parquet:...`,
            `clip-retrieval:...` or `hf-dataset:...`; or anything that `load_model` takes (asked for what `out`
            lacks).
        dataset: the items, paired or not.
        out: the store's folder, created if need be.
        skip_bad: leave out images that cannot be read or decoded, instead of raising.
        cluster: where a teacher is asked, instead of in this process; what is stored or imported is read here.
        views: which views of each image to ask about; of a finished store, how many it must hold.
        source: what `left-out.json` in `out` calls the data; their name, if not given.

    Raises:
        DistilvlError: see `FeatureStore.open`, `import_features`, `load_import`, `load_model`,
            `extract_features` and `extract_with_ray`; a finished store that lacks an item of `dataset`.
    """
    path = Path(spec)
    if is_stored(spec):
        store = FeatureStore.open(spec)
        if views is not None:
            store.require_views(views.count).joined(views, f"the store {store.path}")
        return _finished(store, dataset, skip_bad=skip_bad)
    if views is not None and (is_import(spec) or is_array_folder(path) or cluster is not None):
        raise DistilvlError(
            "only a teacher that is asked in this process shows its features of views.",
            "Leave --views away, or give a teacher and no --engine ray.",
        )
    if is_import(spec):
        return import_features(load_import(spec), spec, dataset, out, skip_bad=skip_bad, data=source)
    if is_array_folder(path):
        return import_arrays(path, dataset, out, skip_bad=skip_bad, data=source)
    if cluster is not None:
        return extract_with_ray(spec, dataset, out, cluster, skip_bad=skip_bad, source=source)
    return extract_features(load_model(spec), dataset, out, skip_bad=skip_bad, views=views, source=source)


def estimate_features(
    spec: str, dataset: Items, out: str | Path, *, skip_bad: bool = False, views: Views | None = None
) -> str:
    """What `prepare_features` would have to ask for, in requests, time and money; asks for nothing and writes nothing.

    Raises:
        DistilvlError: `spec` is no teacher behind an API; others cost nothing.
    """
    teacher = load_model(spec)
    if not isinstance(teacher, PiecewiseTeacher):
        raise DistilvlError(f"the teacher {teacher.name!r} costs nothing but time.", "Run without --estimate.")
    images, _ = unique_images(dataset, skip_bad=skip_bad)
    if views is not None:
        images = with_views(images, views)
    store = FeatureStore.open(out) if (Path(out) / MANIFEST_NAME).is_file() else None
    return estimate(teacher, store, images, unique_captions(dataset))


def _finished(store: FeatureStore, dataset: Items, *, skip_bad: bool) -> ExtractReport:
    """Report on a store that nobody adds to; a missing item is an error, unless it is a bad image to skip."""
    images, skipped = unique_images(dataset, skip_bad=skip_bad)
    keys = list(images)
    lacking = [keys[i] for i in store.missing("image", keys)]
    for key in list(lacking):
        source = images[key][0]
        try:
            decode_image(source.read(), source.name)
        except BadImageError as error:
            if not skip_bad:
                raise
            skipped |= {bad.name: error.reason or NOT_DECODED for bad in images[key]}
            lacking.remove(key)
        else:
            # The first good one is enough for the error below.
            break
    store.require("image", lacking, [images[key][0].name for key in lacking])
    captions = unique_captions(dataset)
    store.require("text", list(captions), list(captions.values()))
    return report_of(store, dataset, skipped)
