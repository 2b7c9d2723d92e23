"""Fill a store from arrays, matched with a dataset by id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.records import PairDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.extract import ExtractReport
from distilvl.features.keys import image_key, text_key
from distilvl.features.manifest import Manifest
from distilvl.features.rows import storable_rows
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.progress import progress
from distilvl.teachers.arrays import FeatureArrays, load_arrays

_SHARD_ROWS = 4096


def import_arrays(
    folder: str | Path, dataset: PairDataset, store_path: str | Path, *, skip_bad: bool = False
) -> ExtractReport:
    """Store the features in `folder` (see `load_arrays`) for all images and captions of `dataset`.

    Rows are found by `record.image_id` and `record.caption_ids`; those of other items are ignored. Where the
    same image or caption occurs under several ids the first one's row counts. Running it again adds what is
    missing.

    Args:
        folder: the arrays.
        dataset: its images are read, not decoded, for their content hashes.
        store_path: the store, created if need be.
        skip_bad: leave out images that cannot be read, instead of raising.

    Raises:
        DistilvlError: an image or caption whose id the arrays lack (nothing is written then), rows that are
            not fit, a store of another teacher, or a full disk.
        BadImageError: an image that cannot be read, unless `skip_bad`.
    """
    arrays = load_arrays(folder)
    images, skipped = _image_rows(arrays, dataset, Path(folder), skip_bad=skip_bad)
    texts = _text_rows(arrays, dataset, Path(folder))
    manifest = Manifest(teacher=arrays.name, revision=arrays.revision, dim=arrays.dim)
    with FeatureStore.writer(store_path, manifest) as store:
        _fill(store, "image", images, arrays.images, list(arrays.image_rows))
        _fill(store, "text", texts, arrays.texts, list(arrays.text_rows))
    return ExtractReport(0, 0, skipped, store)


def _image_rows(
    arrays: FeatureArrays, dataset: PairDataset, folder: Path, *, skip_bad: bool
) -> tuple[dict[bytes, int], list[str]]:
    _require_ids(arrays.image_rows, [record.image_id for record in dataset], "image", folder, dataset.name)
    rows: dict[bytes, int] = {}
    skipped: list[str] = []
    for record in dataset:
        try:
            key = image_key(record.image.read())
        except BadImageError:
            if not skip_bad:
                raise
            skipped.append(record.image.name)
            continue
        rows.setdefault(key, arrays.image_rows[record.image_id])
    return rows, skipped


def _text_rows(arrays: FeatureArrays, dataset: PairDataset, folder: Path) -> dict[bytes, int]:
    pairs = [pair for record in dataset for pair in zip(record.caption_ids, record.captions, strict=True)]
    _require_ids(arrays.text_rows, [caption_id for caption_id, _ in pairs], "caption", folder, dataset.name)
    rows: dict[bytes, int] = {}
    for caption_id, caption in pairs:
        rows.setdefault(text_key(caption), arrays.text_rows[caption_id])
    return rows


def _require_ids(have: dict[str, int], asked: Sequence[str], what: str, folder: Path, dataset: str) -> None:
    missing = [item for item in asked if item not in have]
    if missing:
        raise DistilvlError(
            f"the arrays in {folder} lack the {what} id {missing[0]!r} "
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
    keys = list(rows)
    missing = [keys[i] for i in store.missing(modality, keys)]
    if not missing:
        return
    with progress(f"import: {modality}s", len(missing)) as ticker:
        for start in range(0, len(missing), _SHARD_ROWS):
            block = missing[start : start + _SHARD_ROWS]
            chosen = [rows[key] for key in block]
            values = np.asarray(features[chosen])
            names = [ids[row] for row in chosen]
            storable_rows(values, len(block), store.manifest, "the import", names)
            store.add(modality, block, values)
            ticker.advance(len(block))
