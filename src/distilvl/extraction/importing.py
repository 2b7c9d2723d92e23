"""Fill a store from arrays, matched with a dataset by id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.items import Items, captions_of, images_of
from distilvl.data.left_out import NOT_READ, note_left_out
from distilvl.data.records import UnpairedDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction.arrays import FeatureArrays, load_arrays
from distilvl.extraction.blocks import cut_blocks, share_blocks
from distilvl.extraction.extract import ExtractReport, report_of
from distilvl.features.manifest import Manifest
from distilvl.features.shards import Modality, storable_rows
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import image_key, text_key
from distilvl.io.progress import progress

_SHARD_ROWS = 4096


def import_arrays(
    folder: str | Path, dataset: Items, store_path: str | Path, *, skip_bad: bool = False, data: str = ""
) -> ExtractReport:
    """Store the features in `folder` (see `load_arrays`) for all images and captions of `dataset`.

    Rows are found by `record.image_id` and `record.caption_ids`; those of other items are ignored. Where the
    same image or caption occurs under several ids the first one's row counts. Running it again adds what is
    missing.

    Args:
        folder: the arrays.
        dataset: paired or not; its images are read, not decoded, for their content hashes.
        store_path: the store, created if need be.
        skip_bad: leave out images that cannot be read, instead of raising.
        data: what the store's `left-out.json` calls the data; their name, if not given.

    Raises:
        DistilvlError: an image or caption whose id the arrays lack (nothing is written then), rows that are
            not fit, a store of another teacher, or a full disk.
        BadImageError: an image that cannot be read, unless `skip_bad`.
    """
    return import_features(load_arrays(folder), folder, dataset, store_path, skip_bad=skip_bad, data=data)


def import_features(
    arrays: FeatureArrays,
    source: str | Path,
    dataset: Items,
    store_path: str | Path,
    *,
    skip_bad: bool = False,
    data: str = "",
) -> ExtractReport:
    """As `import_arrays`, for features that are open already; `source` is what error messages call them."""
    images, skipped = _image_rows(arrays, dataset, source, skip_bad=skip_bad)
    texts = _text_rows(arrays, dataset, source)
    manifest = Manifest(teacher=arrays.name, revision=arrays.revision, dim=arrays.dim)
    store = FeatureStore.create(store_path, manifest)
    _fill(store, "image", images, arrays.images, list(arrays.image_rows))
    _fill(store, "text", texts, arrays.texts, list(arrays.text_rows))
    report = report_of(store, dataset, skipped)
    note_left_out(store.path, data or dataset.name, report.left_out)
    return report


def _image_rows(
    arrays: FeatureArrays, dataset: Items, source: str | Path, *, skip_bad: bool
) -> tuple[dict[bytes, int], dict[str, str]]:
    _require_ids(arrays.image_rows, [image_id for image_id, _ in images_of(dataset)], "image", source, dataset.name)
    rows: dict[bytes, int] = {}
    skipped: dict[str, str] = {}
    for image_id, image in images_of(dataset):
        try:
            key = image_key(image.read())
        except BadImageError as error:
            if not skip_bad:
                raise
            skipped[image.name] = error.reason or NOT_READ
            continue
        rows.setdefault(key, arrays.image_rows[image_id])
    return rows, skipped


def _text_rows(arrays: FeatureArrays, dataset: Items, source: str | Path) -> dict[bytes, int]:
    captions = captions_of(dataset)
    known_as = captions if arrays.by_caption else _caption_ids(dataset, source)
    _require_ids(arrays.text_rows, known_as, "caption", source, dataset.name)
    rows: dict[bytes, int] = {}
    for name, caption in zip(known_as, captions, strict=True):
        rows.setdefault(text_key(caption), arrays.text_rows[name])
    return rows


def _caption_ids(dataset: Items, source: str | Path) -> list[str]:
    if isinstance(dataset, UnpairedDataset):
        raise DistilvlError(
            f"the features in {source} know captions by id, and those of {dataset.name} have none.",
            "Import from a table with a column of captions.",
        )
    return [caption_id for record in dataset for caption_id in record.caption_ids]


def _require_ids(have: dict[str, int], asked: Sequence[str], what: str, source: str | Path, dataset: str) -> None:
    missing = [item for item in asked if item not in have]
    if missing:
        raise DistilvlError(
            f"the features in {source} lack the {what} {missing[0]!r} "
            f"({len(missing)} of {len(asked)} of {dataset} missing).",
            "Compute features of these items too, or leave them out of the data set.",
        )


def _fill(
    store: FeatureStore,
    modality: Modality,
    rows: dict[bytes, int],
    features: npt.NDArray[Any],
    ids: list[str],
) -> None:
    """Store what is missing, a shard at a time."""
    lacking = len(store.missing(modality, list(rows)))
    if not lacking:
        return
    with progress(f"import: {modality}s", lacking) as ticker:

        def work(number: int, missing: list[bytes]) -> None:
            chosen = [rows[key] for key in missing]
            values = np.asarray(features[chosen])
            storable_rows(values, len(missing), store.manifest, "the import", [ids[row] for row in chosen])
            store.add(modality, missing, values, number)
            ticker.advance(len(missing))

        share_blocks(store, cut_blocks(modality, list(rows), _SHARD_ROWS), work, ticker)
