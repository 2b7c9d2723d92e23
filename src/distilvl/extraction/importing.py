"""Embeddings that someone already has: read from a folder of arrays, matched with a dataset by id, and stored.

The folder holds `image_features.npy`, `text_features.npy` and `ids.json`, perhaps `teacher.json`; see docs/teachers.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.crops import Items, unique_images
from distilvl.data.records import UnpairedDataset
from distilvl.errors import DistilvlError
from distilvl.extraction.work import cut_blocks, share_blocks
from distilvl.features.manifest import Manifest
from distilvl.features.shards import Modality, storable_embeddings
from distilvl.features.store import FeatureStore
from distilvl.io.files import load_array
from distilvl.io.hashes import file_hash, text_key
from distilvl.io.progress import progress

_SHARD_ROWS = 4096
IMAGE_FILE, TEXT_FILE, IDS_FILE, TEACHER_FILE = ("image_features.npy", "text_features.npy", "ids.json", "teacher.json")
_LAYOUT = (
    f"A folder of arrays holds {IMAGE_FILE} (n, D), {TEXT_FILE} (m, D) and {IDS_FILE} "
    '({"image": [n ids], "text": [m ids]}).'
)


@dataclass(frozen=True)
class FeatureArrays:
    """A teacher's embeddings with the id of each."""

    name: str  # the teacher's
    revision: str  # the teacher's, or a hash of the arrays
    images: npt.NDArray[Any]  # (n, D), memory-mapped
    texts: npt.NDArray[Any]  # (m, D), memory-mapped
    image_rows: dict[str, int]  # `image_id` -> row of `images`
    text_rows: dict[str, int]  # caption id -> row of `texts`; caption -> row when `by_caption`
    by_caption: bool = False  # texts are known by what they say, not by an id


def is_array_folder(path: Path) -> bool:
    """Whether `path` looks like a folder of feature arrays."""
    return any((path / name).is_file() for name in (IMAGE_FILE, TEXT_FILE))


def load_arrays(folder: str | Path) -> FeatureArrays:
    """The arrays in `folder`; ids may be numbers or strings and are compared as strings.

    `DistilvlError` for a missing or malformed file, arrays and ids that do not match, an id twice.
    """
    folder = Path(folder)
    images, texts = float_array(folder / IMAGE_FILE), float_array(folder / TEXT_FILE)
    require_one_space(folder, {IMAGE_FILE: images, TEXT_FILE: texts})
    path = folder / IDS_FILE
    ids = _object(path)
    rows = _rows_of(path, ids, "image", len(images)), _rows_of(path, ids, "text", len(texts))
    return FeatureArrays(*_teacher(folder), images, texts, *rows)


def require_one_space(place: Path, sides: Mapping[str, npt.NDArray[Any]]) -> None:
    """`DistilvlError` unless the images' and the texts' embeddings, by what they are called, have one dimension."""
    if len({side.shape[1] for side in sides.values()}) > 1:
        found = ", ".join(f"{name} has dimension {side.shape[1]}" for name, side in sides.items())
        raise DistilvlError(f"{place}: {found}.", "Both sides of a teacher share one space.")


def float_array(path: Path, remedy: str = _LAYOUT) -> npt.NDArray[Any]:
    """The array in a `.npy` file, shape (n, D), mapped; `DistilvlError` for anything but floating-point numbers."""
    array = load_array(path, remedy)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise DistilvlError(f"{path} is not a two-dimensional array of floating-point numbers.", remedy)
    return array  # type: ignore[no-any-return]


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror}.", _LAYOUT) from error
    except ValueError as error:
        raise DistilvlError(f"{path} is not valid JSON.", _LAYOUT) from error
    if not isinstance(value, dict):
        raise DistilvlError(f"{path} is not a JSON object.", _LAYOUT)
    return value


def _rows_of(path: Path, ids: dict[str, Any], kind: str, count: int) -> dict[str, int]:
    listed = ids.get(kind)
    if not isinstance(listed, list) or len(listed) != count:
        have = len(listed) if isinstance(listed, list) else "no"
        raise DistilvlError(f"{path} has {have} {kind} ids for {count} rows.", _LAYOUT)
    rows: dict[str, int] = {}
    for row, item in enumerate(listed):
        if str(item) in rows:
            raise DistilvlError(f"{path} lists the {kind} id {item!r} twice.", "Give every row an id of its own.")
        rows[str(item)] = row
    return rows


def _teacher(folder: Path) -> tuple[str, str]:
    path = folder / TEACHER_FILE
    if not path.is_file():
        return "arrays", file_hash(*(folder / name for name in (IMAGE_FILE, TEXT_FILE, IDS_FILE)))[:16]
    told = _object(path)
    name, revision = told.get("name"), told.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str):
        raise DistilvlError(f"{path} lacks 'name' or 'revision'.", 'Write {"name": "...", "revision": "..."}.')
    return name, revision


def import_arrays(
    arrays: FeatureArrays, source: str, dataset: Items, out: str | Path, *, skip_bad: bool = False
) -> tuple[FeatureStore, dict[str, str]]:
    """The embeddings in `arrays`, which messages call `source`, of all of `dataset` in a store; and unreadable images.

    They are found by `record.image_id` and `record.caption_ids`; those of other items are ignored. Images are read for
    their content hashes, not decoded. Where the same image or caption occurs under several ids the first one's
    embedding counts. Running it again adds what is missing. `DistilvlError` for an image or caption whose id the arrays
    lack (nothing is written then), embeddings that are not fit, a store of another teacher, or a full disk;
    `BadImageError` for an image that cannot be read, unless `skip_bad`: then they are told, name -> reason.
    """
    _require_ids(arrays.image_rows, [entry.image_id for entry in dataset], "image", source, dataset.name)
    found, unreadable = unique_images(dataset, skip_bad=skip_bad)
    id_of: dict[int, str] = {}
    for entry in dataset:
        id_of.setdefault(id(entry.image), entry.image_id)  # by the object, as names may come twice
    images = {key: arrays.image_rows[id_of[id(places[0])]] for key, places in found.items()}
    captions = dataset.captions
    if arrays.by_caption:
        known_as = captions
    elif isinstance(dataset, UnpairedDataset):
        problem = f"the features in {source} know captions by id, and those of {dataset.name} have none."
        raise DistilvlError(problem, "Import from a table with a column of captions.")
    else:
        known_as = [caption_id for record in dataset for caption_id in record.caption_ids]
    _require_ids(arrays.text_rows, known_as, "caption", source, dataset.name)
    texts: dict[bytes, int] = {}
    for name, caption in zip(known_as, captions, strict=True):
        texts.setdefault(text_key(caption), arrays.text_rows[name])
    manifest = Manifest(teacher=arrays.name, revision=arrays.revision, dim=int(arrays.images.shape[1]))
    store = FeatureStore.create(out, manifest)
    _fill(store, "image", images, arrays.images, list(arrays.image_rows))
    _fill(store, "text", texts, arrays.texts, list(arrays.text_rows))
    return store, unreadable


def _require_ids(have: dict[str, int], wanted: Sequence[str], what: str, source: str, dataset: str) -> None:
    if missing := [item for item in wanted if item not in have]:
        lacking = f"{what} {missing[0]!r} ({len(missing)} of {len(wanted)} of {dataset} missing)"
        remedy = "Compute features of these items too, or leave them out of the data set."
        raise DistilvlError(f"the features in {source} lack the {lacking}.", remedy)


def _fill(
    store: FeatureStore, modality: Modality, rows: dict[bytes, int], features: npt.NDArray[Any], ids: list[str]
) -> None:
    """Store what is missing, a shard at a time."""
    lacking = len(store.missing(modality, list(rows)))
    if not lacking:
        return
    with progress(f"import: {modality}s", lacking) as ticker:

        def work(number: int, missing: list[bytes]) -> None:
            chosen = [rows[key] for key in missing]
            values = np.asarray(features[chosen])
            storable_embeddings(values, len(missing), store.manifest, "the import", [ids[row] for row in chosen])
            store.add(modality, missing, values, number)
            ticker.advance(len(missing))

        share_blocks(store, cut_blocks(modality, list(rows), _SHARD_ROWS), work, ticker)
