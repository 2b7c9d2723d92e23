"""Embeddings of a dataset, of image files or of texts by any model, as arrays that other tools read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distilvl.data.folders import no_images, scan_folder
from distilvl.data.left_out import Faults, LeftOut, write_left_out
from distilvl.data.listing import missing
from distilvl.data.pixels import Decoding
from distilvl.data.records import FileImage, PairDataset, UnpairedImage
from distilvl.errors import DistilvlError
from distilvl.extraction.importing import IDS_FILE, IMAGE_FILE, TEACHER_FILE, TEXT_FILE
from distilvl.io.files import make_folder, write_atomically
from distilvl.models.encoder import Encoder

_BATCH = 64
Embedded = npt.NDArray[np.float32]


@dataclass
class Photographs:
    """Image files without captions, in the order in which they were named."""

    name: str  # how messages call them
    images: list[UnpairedImage] = field(default_factory=list, repr=False)  # each with its path as id
    left_out: LeftOut = field(default_factory=LeftOut, repr=False)  # files in the folders that are no images

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[UnpairedImage]:
        return iter(self.images)

    @classmethod
    def of_paths(cls, paths: Sequence[Path], *, skip_bad: bool = False) -> Photographs:
        """Files as they are named, and all images of folders; `skip_bad` leaves out links that lead nowhere.

        `DistilvlError` for a path that is not there, or a folder without images.
        """
        found = cls(", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else ""))
        faults = Faults(found.name, skip_bad=skip_bad)
        for path in paths:
            names = [path.as_posix()]
            if path.is_dir():
                scan = scan_folder(path, skip_bad=skip_bad)
                faults.left_out.update(scan.left_out)
                for name in scan.dead:
                    faults.add(missing(str(path / name)))
                if not scan.images:
                    raise no_images(path, scan.left_out)
                names = [(path / name).as_posix() for name in scan.images]
            elif not path.exists():
                raise DistilvlError(f"there is no file or folder {path}.", "Check the path.")
            found.images += [UnpairedImage(name, FileImage(name)) for name in names]
        faults.check()
        found.left_out.update(faults.left_out)
        return found


@dataclass(frozen=True)
class Embeddings:
    """L2-normalised embeddings with their ids."""

    name: str  # the model's
    revision: str  # the model's
    images: Embedded | None  # (n, D) float32; none where no images were encoded
    texts: Embedded | None  # (m, D) float32; none where no texts were encoded
    ids: dict[str, list[str]]  # of each `image` and `text`, and `text_image`: the image of each text of a dataset
    left_out: LeftOut = field(default_factory=LeftOut)  # images that could not be used

    def cut(self, dim: int | None, dims: frozenset[int]) -> Embeddings:
        """The first `dim` numbers of each embedding, L2-normalised again; `dims` are those the model is trained for."""
        if dim is None:
            return self
        if dim not in dims:
            known = ", ".join(map(str, sorted(dims)))
            raise DistilvlError(f"{self.name} is not trained to be used with {dim} dimensions.", f"Choose {known}.")
        images, texts = (None if one is None else _normalised(one[:, :dim]) for one in (self.images, self.texts))
        return replace(self, images=images, texts=texts)

    def write(self, folder: Path) -> list[Path]:
        """Write `image_features.npy`, `text_features.npy`, `ids.json` and `teacher.json`, which `--teacher` reads."""
        if folder.is_dir() and any(folder.iterdir()) and not (folder / IDS_FILE).is_file():
            raise DistilvlError(f"{folder} holds other things.", "Choose an empty or new folder for --out.")
        make_folder(folder)
        texts = {IDS_FILE: self.ids, TEACHER_FILE: {"name": self.name, "revision": self.revision}}
        files = {name: (json.dumps(value, ensure_ascii=False) + "\n").encode() for name, value in texts.items()}
        for name, array in ((IMAGE_FILE, self.images), (TEXT_FILE, self.texts)):
            if array is None:
                (folder / name).unlink(missing_ok=True)
            else:
                buffer = io.BytesIO()
                np.save(buffer, array)
                files[name] = buffer.getvalue()
        for name, content in files.items():
            write_atomically(folder / name, content)
        write_left_out(folder, {"data": self.left_out})
        return [folder / name for name in files]


def embed(
    encoder: Encoder, images: Photographs | PairDataset | None, texts: Sequence[str] = (), *, skip_bad: bool = False
) -> Embeddings:
    """Encode images, and either texts or the captions of a dataset of images; each different text is encoded once.

    `BadImageError` for an undecodable image, unless `skip_bad`, which leaves them out.
    """
    ids: dict[str, list[str]] = {}
    found, left_out = None, LeftOut()
    if images is not None:
        decoding = Decoding(images, skip_bad, "encoding images")
        found = np.concatenate([encoder.encode_images(block) for block in decoding.blocks()])
        left_out = images.left_out | decoding.left_out
        if isinstance(images, Photographs):
            ids["image"] = [images.images[row].image_id for row in decoding.rows]
        else:
            records = [images[row] for row in decoding.rows]
            ids["image"] = [record.image_id for record in records]
            texts = [caption for record in records for caption in record.captions]
            ids["text"] = [name for record in records for name in record.caption_ids]
            ids["text_image"] = [record.image_id for record in records for _ in record.captions]
    of_texts = None
    if texts:
        ids.setdefault("text", list(texts))
        place = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        unique = list(place)
        parts = [encoder.encode_texts(unique[k : k + _BATCH]) for k in range(0, len(unique), _BATCH)]
        of_texts = np.concatenate(parts)[[place[text] for text in texts]]
    return Embeddings(encoder.name, encoder.revision, found, of_texts, ids, left_out)


def _normalised(features: Embedded) -> Embedded:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)
