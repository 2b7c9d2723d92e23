"""Search in the page itself: a static folder with onnxruntime-web, the text tower, and an index of photographs."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
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
from distilvl.search.about import ABOUT_NAME, About, prefix
from distilvl.search.photographs import Picture, list_files, read_picture
from distilvl.search.table import PhotoTable

__all__ = ["Bundle", "check_photos", "web_files", "write_bundle", "write_indexed", "write_pictures"]

_Entry = dict[str, Any]
_BATCH, _ROWS = 32, 512
_MOST_PIXELS = 100_000_000  # of a batch, give or take one picture
_SHARED = ("search.css", "tiles.js", "icon.svg")  # of the page of `distilvl serve`


@dataclass(frozen=True)
class Bundle:
    """What was written: a folder for any web server, of `size` bytes, and how many pictures are in its index."""

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

    `exported` is a folder that `distilvl export` wrote, whose smallest dtype is used; `photos` a folder, whose pictures
    are encoded in that dtype, or what `distilvl index` made of some with this student; `out` a new folder; `npm_files`
    has the npm archives, for machines without network (`web_files`). `DistilvlError` where `out` is there, for no
    exported student, no pictures, an index of another model, no npm packages, and a full disk.
    """
    exported, out = Path(exported), Path(out)
    with new_folder(out) as staging:
        student, libraries = Runtime.load(exported), web_files(npm_files)
        written = write_indexed if _is_index(Path(photos)) else write_pictures
        pictures, left_out = written(Path(photos), student, staging)
        for source in files("distilvl.browser").joinpath("page").iterdir():
            (staging / source.name).write_bytes(source.read_bytes())
        served = files("distilvl").joinpath("serving", "page")
        for name in _SHARED:  # a static folder may lie anywhere below its host's root
            text = served.joinpath(name).read_text(encoding="utf-8").replace('"/page/', '"./')
            (staging / name).write_text(text, encoding="utf-8")
        (staging / "npm").mkdir()
        for name, content in libraries.items():
            (staging / "npm" / name).write_bytes(content)
        _write_model(exported, student, staging)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Bundle(out, pictures, left_out, size)


def _write_model(exported: Path, student: Runtime, folder: Path) -> None:
    manifest = student.manifest
    _, text = manifest.graphs(student.precision)
    shutil.copyfile(exported / text, folder / "text.onnx")
    shutil.copyfile(exported / manifest.tokenizer, folder / "tokenizer.json")
    about = {"name": manifest.name, "precision": student.precision, "width": manifest.dim,
             "max_length": manifest.max_length}  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")


def check_photos(photos: Path, revision: str) -> None:
    """`DistilvlError` unless `photos` is a folder, or an index by the student with this hash of its folder."""
    if not _is_index(photos):
        list_files(photos)
    elif About.load(photos).model.revision.partition("-")[0] != revision:  # a dtype may follow the hash
        what = f"the index {photos} was made with {About.load(photos).model.name!r}, not with the exported student."
        raise DistilvlError(what, "Make it with that student, or give the folder of the photographs.")


def _is_index(photos: Path) -> bool:
    return (photos / ABOUT_NAME).is_file()


def write_indexed(index: Path, student: Runtime, folder: Path) -> tuple[int, LeftOut]:
    """The same files as `write_pictures`, and what it returns, of the photographs in an index; nothing is encoded.

    Copies are files of the same bytes. Paths are relative to the folder that was indexed; of several, the name of each
    goes before them. `DistilvlError` for an index of another model, or without photographs.
    """
    check_photos(index, student.manifest.revision)
    about = About.load(index)
    table = PhotoTable(index, student.dim, home=about.home, new=False)
    left_out = about.left_out(index)
    files: dict[str, list[str]] = {}
    for path, (_, _, key) in sorted(table.stamps().items()):
        files.setdefault(key, []).append(path)
    if not files:
        raise DistilvlError(f"the index {index} holds no photographs.", "Run `distilvl index` again.")
    keys = list(files)
    (folder / "thumbnails").mkdir()
    entries: list[_Entry] = []
    with (folder / "vectors.bin").open("wb") as vectors:
        for start in range(0, len(keys), _ROWS):
            found = table.with_ids(keys[start : start + _ROWS])
            for photo in (found[key] for key in keys[start : start + _ROWS] if key in found):
                paths = [_inside(path, about.folders) for path in files[photo.id]]
                (folder / "thumbnails" / f"{photo.id}.jpg").write_bytes(photo.thumbnail)
                vectors.write(photo.vector.astype("<f2").tobytes())
                entries.append(_entry(photo.id, paths, photo.date, (photo.width, photo.height)))
    _write_entries(folder, entries, left_out)
    return len(entries), left_out


def _inside(path: str, folders: list[str]) -> str:
    """The path of a file as seen from the folder that holds it, which is named before it where there are several."""
    folder = next(folder for folder in folders if path.startswith(prefix(folder)))
    inside = path.removeprefix(prefix(folder))
    return inside if len(folders) == 1 else f"{Path(folder).name}/{inside}"


def write_pictures(photos: Path, student: Runtime, folder: Path) -> tuple[int, LeftOut]:
    """Encode the pictures of a folder: `thumbnails/ID.jpg`, `vectors.bin` and `index.json` in `folder`, which is there.

    `vectors.bin` has an L2-normalised embedding a picture, D little-endian float16, in the order of `index.json`. Paths
    in it are relative to `photos`. Copies of a picture (of its bytes, or of its pixels) are one entry, with the `paths`
    of all. How many files were left out, and why, is in `index.json`, too. Returned are the number of pictures in the
    index, and what was left out. `DistilvlError` for no such folder, or no picture in it that can be decoded.
    """
    encoder, root, left_out = Encoder(student), photos.resolve(), LeftOut()
    (folder / "thumbnails").mkdir()
    embeddings: list[npt.NDArray[np.float16]] = []
    entries: list[_Entry] = []
    copies: dict[str, list[str]] = {}
    for batch in _batches(root, left_out, copies):
        embeddings.append(encoder.encode_images([picture.image for picture in batch if picture.image]).astype("<f2"))
        for picture in batch:
            (folder / "thumbnails" / f"{picture.id}.jpg").write_bytes(picture.thumbnail)
            assert picture.image is not None
            date = picture.taken or picture.file.modified
            entries.append(_entry(picture.id, copies[picture.id], date, full_size(picture.image)))
    if not entries:
        told = f"; left out {'; '.join(left_out.lines())}" if left_out else ""
        raise DistilvlError(f"{photos} has no picture that can be decoded{told}.", "Give a folder with photographs.")
    left_out.log(str(photos))
    (folder / "vectors.bin").write_bytes(np.concatenate(embeddings).tobytes())
    _write_entries(folder, entries, left_out)
    return len(entries), left_out


def _entry(key: str, paths: list[str], date: datetime, size: tuple[int, int]) -> _Entry:
    """A picture in `index.json`; its first file by path stands for all."""
    width, height = size
    return {"id": key, "path": paths[0], "date": date.isoformat(), "width": width, "height": height, "paths": paths}


def _write_entries(folder: Path, entries: list[_Entry], left_out: LeftOut) -> None:
    # Whoever opens the page can read this: names of what is not in it are nobody's business.
    index = {"pictures": entries, "left_out": left_out.counts}
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def _batches(photos: Path, left_out: LeftOut, copies: dict[str, list[str]]) -> Iterator[list[Picture]]:
    """The different pictures; `left_out` is told of all other files, `copies` of the files of each picture, by id."""
    owners: dict[str, str] = {}  # of contents, the id of the picture under which they go
    seen: dict[bytes, str] = {}
    batch: list[Picture] = []
    found = list_files(photos, left_out=left_out)
    with progress("encoding", len(found)) as ticker:
        for file in found:
            picture, path = read_picture(file, owners), Path(file.path).relative_to(photos).as_posix()
            if picture.reason:
                left_out.add(picture.kind, path)
            else:
                if picture.image is not None:
                    owners[picture.id] = seen.setdefault(_pixels(picture), picture.id)
                    if owners[picture.id] == picture.id:
                        batch.append(picture)
                copies.setdefault(owners[picture.id], []).append(path)
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
