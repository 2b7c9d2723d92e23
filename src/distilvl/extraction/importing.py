"""Embeddings that someone already has: read from a folder of arrays, matched with a dataset by id, and stored.

The folder holds `image_features.npy`, `text_features.npy` and `ids.json`, perhaps `teacher.json`; see docs/teachers.md.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.crops import Items
from distilvl.data.left_out import NOT_READ
from distilvl.data.records import UnpairedDataset
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction.work import cut_blocks, share_blocks
from distilvl.features.manifest import Manifest
from distilvl.features.shards import Modality, storable_embeddings
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import image_key, text_key
from distilvl.io.progress import progress

_SHARD_ROWS = 4096
IMAGE_FILE, TEXT_FILE, IDS_FILE, TEACHER_FILE = (
    "image_features.npy",
    "text_features.npy",
    "ids.json",
    "teacher.json",
)
_LAYOUT = (
    f"A folder of arrays holds {IMAGE_FILE} (n, D), {TEXT_FILE} (m, D) and {IDS_FILE} "
    '({"image": [n ids], "text": [m ids]}).'
)


@dataclass(frozen=True)
class FeatureArrays:
    """A teacher's embeddings with the id of each.

    Attributes:
        name: the teacher's, from `teacher.json`; `arrays` without that file.
        revision: from `teacher.json`; a hash of the arrays without it.
        images: shape (n, D), memory-mapped.
        texts: shape (m, D), memory-mapped.
        image_rows: `image_id` -> row of `images`.
        text_rows: caption id -> row of `texts`; caption -> row when `by_caption`.
        by_caption: texts are known by what they say, not by an id.
    """

    name: str
    revision: str
    images: npt.NDArray[Any]
    texts: npt.NDArray[Any]
    image_rows: dict[str, int]
    text_rows: dict[str, int]
    by_caption: bool = False

    @property
    def dim(self) -> int:
        """Embedding dimension D."""
        return int(self.images.shape[1])


def is_array_folder(path: Path) -> bool:
    """Whether `path` looks like a folder of feature arrays."""
    return any((path / name).is_file() for name in (IMAGE_FILE, TEXT_FILE))


def load_arrays(folder: str | Path) -> FeatureArrays:
    """The arrays in `folder`; ids may be numbers or strings and are compared as strings.

    Raises:
        DistilvlError: a missing or malformed file, arrays and ids that do not match, an id twice.
    """
    folder = Path(folder)
    images, texts = float_array(folder / IMAGE_FILE), float_array(folder / TEXT_FILE)
    if images.shape[1] != texts.shape[1]:
        raise DistilvlError(
            f"{folder}: {IMAGE_FILE} has dimension {images.shape[1]}, {TEXT_FILE} has dimension {texts.shape[1]}.",
            "Both sides of a teacher share one space.",
        )
    ids = _object(folder / IDS_FILE)
    image_rows = _rows_of(folder / IDS_FILE, ids, "image", len(images))
    text_rows = _rows_of(folder / IDS_FILE, ids, "text", len(texts))
    name, revision = _teacher(folder)
    return FeatureArrays(name, revision, images, texts, image_rows, text_rows)


def float_array(path: Path, remedy: str = _LAYOUT) -> npt.NDArray[Any]:
    """The array in a `.npy` file, shape (n, D), mapped; `DistilvlError` for anything but floating-point numbers."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", remedy) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DistilvlError(f"{path} is not a plain NumPy array: {' '.join(str(error).split())}.", remedy) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise DistilvlError(f"{path} is not a two-dimensional array of floating-point numbers.", remedy)
    return array


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
        return "arrays", content_hash(folder / name for name in (IMAGE_FILE, TEXT_FILE, IDS_FILE))
    told = _object(path)
    name, revision = told.get("name"), told.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str):
        raise DistilvlError(f"{path} lacks 'name' or 'revision'.", 'Write {"name": "...", "revision": "..."}.')
    return name, revision


def content_hash(files: Iterable[Path]) -> str:
    """16 hex digits of what all `files` hold, in order: the revision of a teacher that has no other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def import_arrays(
    arrays: FeatureArrays, source: str, dataset: Items, out: str | Path, *, skip_bad: bool = False
) -> tuple[FeatureStore, dict[str, str]]:
    """Store the embeddings in `arrays` of all images and captions of `dataset`.

    They are found by `record.image_id` and `record.caption_ids`; those of other items are ignored. Where the same image
    or caption occurs under several ids the first one's embedding counts. Running it again adds what is missing.

    Args:
        arrays: the embeddings.
        source: what error messages call them.
        dataset: paired or not; its images are read, not decoded, for their content hashes.
        out: the store, created if need be.
        skip_bad: leave out images that cannot be read, instead of raising.

    Returns:
        The store; and name -> reason of the images that cannot be read.

    Raises:
        DistilvlError: an image or caption whose id the arrays lack (nothing is written then), embeddings that are
            not fit, a store of another teacher, or a full disk.
        BadImageError: an image that cannot be read, unless `skip_bad`.
    """
    images, unreadable = _image_rows(arrays, dataset, source, skip_bad=skip_bad)
    texts = _text_rows(arrays, dataset, source)
    store = FeatureStore.create(out, Manifest(teacher=arrays.name, revision=arrays.revision, dim=arrays.dim))
    _fill(store, "image", images, arrays.images, list(arrays.image_rows))
    _fill(store, "text", texts, arrays.texts, list(arrays.text_rows))
    return store, unreadable


def _image_rows(
    arrays: FeatureArrays, dataset: Items, source: str, *, skip_bad: bool
) -> tuple[dict[bytes, int], dict[str, str]]:
    _require_ids(arrays.image_rows, [entry.image_id for entry in dataset], "image", source, dataset.name)
    rows: dict[bytes, int] = {}
    unreadable: dict[str, str] = {}
    for entry in dataset:
        try:
            key = image_key(entry.image.read())
        except BadImageError as error:
            if not skip_bad:
                raise
            unreadable[entry.image.name] = error.reason or NOT_READ
            continue
        rows.setdefault(key, arrays.image_rows[entry.image_id])
    return rows, unreadable


def _text_rows(arrays: FeatureArrays, dataset: Items, source: str) -> dict[bytes, int]:
    captions = dataset.captions
    known_as = captions if arrays.by_caption else _caption_ids(dataset, source)
    _require_ids(arrays.text_rows, known_as, "caption", source, dataset.name)
    rows: dict[bytes, int] = {}
    for name, caption in zip(known_as, captions, strict=True):
        rows.setdefault(text_key(caption), arrays.text_rows[name])
    return rows


def _caption_ids(dataset: Items, source: str) -> list[str]:
    if isinstance(dataset, UnpairedDataset):
        raise DistilvlError(
            f"the features in {source} know captions by id, and those of {dataset.name} have none.",
            "Import from a table with a column of captions.",
        )
    return [caption_id for record in dataset for caption_id in record.caption_ids]


def _require_ids(have: dict[str, int], wanted: Sequence[str], what: str, source: str, dataset: str) -> None:
    missing = [item for item in wanted if item not in have]
    if missing:
        raise DistilvlError(
            f"the features in {source} lack the {what} {missing[0]!r} "
            f"({len(missing)} of {len(wanted)} of {dataset} missing).",
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
            storable_embeddings(values, len(missing), store.manifest, "the import", [ids[row] for row in chosen])
            store.add(modality, missing, values, number)
            ticker.advance(len(missing))

        share_blocks(store, cut_blocks(modality, list(rows), _SHARD_ROWS), work, ticker)
