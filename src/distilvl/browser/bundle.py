"""`write_bundle`: a static folder whose page searches photographs by itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.browser.npm import web_files
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.io.files import new_folder
from distilvl.io.progress import progress
from distilvl.models.encoder import Encoder
from distilvl.pictures import full_size
from distilvl.runtime import Runtime
from distilvl.search.photographs import Picture, list_files, read_picture

_BATCH = 32
_MOST_PIXELS = 100_000_000  # of a batch, give or take one picture


def write_pictures(photos: Path, student: Runtime, folder: Path) -> tuple[int, LeftOut]:
    """Encode the pictures of a folder: `thumbnails/ID.jpg`, `vectors.bin` and `index.json`.

    `vectors.bin` has a row a picture, D little-endian float16 of unit length, in the order of `index.json`. Paths in
    it are relative to `photos`. Copies of a picture (of its bytes, or of its pixels) are one entry, with the
    `paths` of all. How many files were left out, and why, is in `index.json`, too.

    Args:
        photos: pictures, in folders too.
        student: encodes them.
        folder: is there already.

    Returns:
        How many pictures are in the index, and what was left out, with paths relative to `photos`.

    Raises:
        DistilvlError: no such folder, or no picture in it that can be decoded.
    """
    encoder = Encoder(student)
    (folder / "thumbnails").mkdir()
    rows: list[npt.NDArray[np.float16]] = []
    about: list[dict[str, Any]] = []
    root, left_out = photos.resolve(), LeftOut()
    copies: dict[str, list[str]] = {}
    for batch in _batches(root, left_out, copies):
        good = [picture for picture in batch if picture.image is not None]
        for picture in batch:
            if picture.reason:
                left_out.add(picture.kind, Path(picture.file.path).relative_to(root).as_posix())
        if not good:
            continue
        rows.append(encoder.encode_images([picture.image for picture in good if picture.image]).astype("<f2"))
        for picture in good:
            (folder / "thumbnails" / f"{picture.id}.jpg").write_bytes(picture.thumbnail)
            about.append(_entry(picture, root))
    about = [{**entry, "paths": copies[entry["id"]]} for entry in about]
    if not about:
        told = f"; left out {'; '.join(left_out.lines())}" if left_out else ""
        raise DistilvlError(f"{photos} has no picture that can be decoded{told}.", "Give a folder with photographs.")
    left_out.log(str(photos))
    (folder / "vectors.bin").write_bytes(np.concatenate(rows).tobytes())
    # Whoever opens the page can read this: names of what is not in it are nobody's business.
    index = {"pictures": about, "left_out": left_out.counts}
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    return len(about), left_out


def _batches(photos: Path, left_out: LeftOut, copies: dict[str, list[str]]) -> Iterator[list[Picture]]:
    """The files' pictures, each once; `copies` is filled with the files of each, by its id."""
    files = list_files(photos, left_out=left_out)
    owners: dict[str, str] = {}  # of contents, the id of the picture under which they go
    seen: dict[bytes, str] = {}
    batch: list[Picture] = []
    with progress("encoding", len(files)) as ticker:
        for file in files:
            picture = read_picture(file, owners)
            if picture.image is not None:
                owners[picture.id] = seen.setdefault(_pixels(picture), picture.id)
            if picture.reason or (picture.image is not None and owners[picture.id] == picture.id):
                batch.append(picture)
            if not picture.reason:
                copies.setdefault(owners[picture.id], []).append(Path(file.path).relative_to(photos).as_posix())
            if len(batch) == _BATCH or sum(picture.pixels for picture in batch) > _MOST_PIXELS:
                yield batch
                batch = []
            ticker.advance()
    if batch:
        yield batch


def _pixels(picture: Picture) -> bytes:
    """A hash of all pixels, which are equal where only the EXIF or the packing of a file is another."""
    assert picture.image is not None
    if full_size(picture.image) != picture.image.size:
        return picture.id.encode()  # decoded smaller, where different pictures may become equal
    return hashlib.sha256(repr(picture.image.size).encode() + picture.image.tobytes()).digest()


def _entry(picture: Picture, photos: Path) -> dict[str, Any]:
    assert picture.image is not None
    width, height = full_size(picture.image)
    return {
        "id": picture.id,
        "path": Path(picture.file.path).relative_to(photos).as_posix(),
        "date": (picture.taken or picture.file.modified).isoformat(),
        "width": width,
        "height": height,
    }


_SHARED = ("search.css", "tiles.js", "icon.svg")
"""Of the page of `distilvl serve`."""


@dataclass(frozen=True)
class Bundle:
    """What was written.

    Attributes:
        folder: to be put behind any web server.
        pictures: in its index.
        left_out: files of the folder that are not, by reason.
        size: bytes of all files.
    """

    folder: Path
    pictures: int
    left_out: LeftOut
    size: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        left_out = self.left_out.as_dict()
        return {"folder": str(self.folder), "pictures": self.pictures, "left_out": left_out, "size": self.size}


def write_bundle(
    exported: str | Path, photos: str | Path, out: str | Path, npm_files: str | Path | None = None
) -> Bundle:
    """Write page, libraries, the student's text tower and an index of `photos`; the folder appears whole or not at all.

    Args:
        exported: a folder that `distilvl export` wrote; its smallest precision is used, for the index too.
        photos: a folder of pictures.
        out: new folder.
        npm_files: a folder with the npm archives, for machines without network; see `web_files`.

    Raises:
        DistilvlError: `out` is there, not an exported student, no pictures, no npm packages, or a full disk.
    """
    exported, out = Path(exported), Path(out)
    with new_folder(out) as staging:
        student = Runtime.load(exported)
        libraries = web_files(npm_files)
        pictures, left_out = write_pictures(Path(photos), student, staging)
        _write_page(staging)
        (staging / "npm").mkdir()
        for name, content in libraries.items():
            (staging / "npm" / name).write_bytes(content)
        _write_model(exported, student, staging)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Bundle(out, pictures, left_out, size)


def _write_page(folder: Path) -> None:
    for source in files("distilvl.browser").joinpath("page").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    served = files("distilvl").joinpath("serving", "page")
    for name in _SHARED:
        text = served.joinpath(name).read_text(encoding="utf-8")
        # A static folder may lie anywhere below its host's root.
        (folder / name).write_text(text.replace('"/page/', '"./'), encoding="utf-8")


def _write_model(exported: Path, student: Runtime, folder: Path) -> None:
    manifest = student.manifest
    _, text = manifest.graphs(student.precision)
    shutil.copyfile(exported / text, folder / "text.onnx")
    shutil.copyfile(exported / manifest.tokenizer, folder / "tokenizer.json")
    about = {"name": manifest.name, "precision": student.precision, "width": manifest.width,
             "max_length": manifest.max_length}  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
