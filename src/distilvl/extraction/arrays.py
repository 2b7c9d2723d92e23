"""Features that someone already has: `image_features.npy`, `text_features.npy`, `ids.json`;
and the specs of other tools' files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.io.specs import choice, parse_spec, split_kind, word

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
    """A teacher's output features with the id of each row.

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
        """Width D of the shared space."""
        return int(self.images.shape[1])


def is_array_folder(path: Path) -> bool:
    """Whether `path` looks like a folder of feature arrays."""
    return any((path / name).is_file() for name in (IMAGE_FILE, TEXT_FILE))


def load_arrays(folder: str | Path) -> FeatureArrays:
    """The arrays in `folder`; ids may be numbers or strings and are compared as strings.

    Raises:
        DistilvlError: a missing or malformed file, arrays and ids of different length, different widths, an
            id twice.
    """
    folder = Path(folder)
    images, texts = _array(folder / IMAGE_FILE), _array(folder / TEXT_FILE)
    if images.shape[1] != texts.shape[1]:
        raise DistilvlError(
            f"{folder}: {IMAGE_FILE} has width {images.shape[1]}, {TEXT_FILE} has width {texts.shape[1]}.",
            "Both sides of a teacher share one space.",
        )
    ids = _object(folder / IDS_FILE)
    image_rows = _rows_of(folder / IDS_FILE, ids, "image", len(images))
    text_rows = _rows_of(folder / IDS_FILE, ids, "text", len(texts))
    name, revision = _teacher(folder)
    return FeatureArrays(name, revision, images, texts, image_rows, text_rows)


def _array(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", _LAYOUT) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DistilvlError(f"{path} is not a plain NumPy array: {' '.join(str(error).split())}.", _LAYOUT) from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
        raise DistilvlError(f"{path} is not a two-dimensional array of floating-point numbers.", _LAYOUT)
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
        return "arrays", _content_hash(folder)
    told = _object(path)
    name, revision = told.get("name"), told.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str):
        raise DistilvlError(f"{path} lacks 'name' or 'revision'.", 'Write {"name": "...", "revision": "..."}.')
    return name, revision


def _content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (IMAGE_FILE, TEXT_FILE, IDS_FILE):
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


_KINDS = ("parquet", "clip-retrieval", "hf-dataset")
_FORM = "Write parquet:PATH, clip-retrieval:FOLDER or hf-dataset:FOLDER, with ?id=COLUMN&image=COLUMN&... after it."
_NAME = word("a name")
_OPTIONS = {
    "id": _NAME,
    "id_part": choice("all", "name", "stem"),
    "image": _NAME,
    "caption": _NAME,
    "caption_id": _NAME,
    "text": _NAME,
    "split": _NAME,
    "name": _NAME,
    "revision": _NAME,
}
# clip-retrieval's own names.
_DEFAULTS = {"clip-retrieval": {"id": "image_path"}}


@dataclass(frozen=True, kw_only=True)
class ImportSpec:
    """Where features lie, and under which names.

    Attributes:
        kind: `parquet`, `clip-retrieval` or `hf-dataset`.
        path: a file or folder.
        id: column of the images' ids, which are the dataset's `image_id`s.
        id_part: what of an id counts: `all`, `name` (without folders) or `stem` (and without the ending).
        image: column of the images' rows.
        caption: column of the captions, by which texts are found, unless `caption_id` is given.
        caption_id: column of the captions' ids, which are the dataset's caption ids.
        text: column of the captions' rows.
        split: of a dataset dictionary.
        name: the teacher's.
        revision: the teacher's; a hash of the files unless given.
    """

    kind: str
    path: Path
    id: str = "id"
    id_part: str = "all"
    image: str = "image_embedding"
    caption: str = "caption"
    caption_id: str | None = None
    text: str = "text_embedding"
    split: str | None = None
    name: str | None = None
    revision: str | None = None

    @property
    def teacher(self) -> str:
        """The teacher's name: as given, or the kind of import."""
        return self.name or self.kind

    def image_id(self, value: object) -> str:
        """The part of an id that counts."""
        path = PurePosixPath(str(value))
        return {"all": str(value), "name": path.name, "stem": path.stem}[self.id_part]


def is_import(spec: str) -> bool:
    """Whether `spec` names features to import."""
    return bool(split_kind(spec, _KINDS)[0])


def read_import_spec(spec: str) -> ImportSpec:
    """What `spec` says.

    Raises:
        DistilvlError: another form, an unknown option or value, or a path that is not there.
    """
    parsed = parse_spec(spec, _KINDS, "features")
    if not parsed.kind or not parsed.place:
        raise DistilvlError(f"{spec!r} names no features to import.", _FORM)
    given = parsed.read(_OPTIONS)
    path = Path(parsed.place)
    if not path.exists():
        raise DistilvlError(f"there are no features at {path}.", _FORM)
    return replace(ImportSpec(kind=parsed.kind, path=path), **{**_DEFAULTS.get(parsed.kind, {}), **given})
