"""One worker of a Ray cluster: loads the teacher once, then fills blocks of the shared store as it is given them."""

from __future__ import annotations

import importlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from distilvl.data.records import FileImage, ImageSource
from distilvl.errors import DistilvlError
from distilvl.extraction.encode import Extracted, fill_captions, fill_images
from distilvl.extraction.work import Block
from distilvl.features.manifest import Manifest
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import KEY_BYTES
from distilvl.io.progress import Silence
from distilvl.models import load_model
from distilvl.pictures.limits import set_max_pixels
from distilvl.teachers.base import PiecewiseTeacher, Teacher
from distilvl.teachers.checks import checked

Table: TypeAlias = Any
"""A `pyarrow.Table`; that package, which comes with Ray Data, has no types."""


@dataclass(frozen=True)
class SentImage:
    """An image that is no file, as it came with its block."""

    name: str
    data: bytes

    def read(self) -> bytes:
        """The encoded image."""
        return self.data


@dataclass(frozen=True)
class SharedImage:
    """An image file that was there when the command began."""

    name: str

    def read(self) -> bytes:
        """Bytes of the file. A `DistilvlError` otherwise: it is the disk that is bad, not the image."""
        try:
            return Path(self.name).read_bytes()
        except OSError as error:
            raise DistilvlError(
                f"the Ray worker on {socket.gethostname()} cannot read the image {self.name}: {error.strerror}.",
                "Keep the images on a disk that all machines share, under the same path.",
            ) from error


def order_of(block: Block, lacking: dict[bytes, ImageSource | str]) -> Table:
    """`block` on its way to a worker: a table of one row.

    Args:
        block: whole, since its lease is that of all its keys.
        lacking: the items of it that the store lacks. Of an image in a file only the path travels, of any other one its
            bytes.

    Raises:
        BadImageError: an image that is no file and cannot be read.
    """
    pa = importlib.import_module("pyarrow")
    item = pa.struct([("key", pa.binary()), ("text", pa.large_string()), ("data", pa.large_binary())])
    schema = pa.schema(
        [("modality", pa.string()), ("number", pa.int64()), ("keys", pa.binary()), ("items", pa.large_list(item))]
    )
    items = [{"key": key, **_sent(value)} for key, value in lacking.items()]
    row = {"modality": block.modality, "number": block.number, "keys": b"".join(block.keys), "items": items}
    return pa.Table.from_pylist([row], schema=schema)


def _sent(item: ImageSource | str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item, "data": None}
    return {"text": item.name, "data": None if isinstance(item, FileImage) else item.read()}


class RayWorker:
    """A callable for `ray.data.Dataset.map_batches`; Ray makes one in each process, and a new one for a dead one.

    A `DistilvlError` is part of the result: raised here, it would reach the user as Ray's traceback.

    Args:
        spec: the teacher's, as for `load_model`.
        store: the store's folder.
        folder: where relative paths start, which is where the command was given.
        skip_bad: leave bad images out.
        most_pixels: of an image, as set where the command was given; the worker's own limit if None.
    """

    def __init__(self, spec: str, store: str, folder: str, skip_bad: bool, most_pixels: int | None = None) -> None:
        if most_pixels is not None:
            set_max_pixels(most_pixels)
        self._skip_bad = skip_bad
        self._error = ""
        try:
            _enter(folder)
            self._teacher: Teacher = checked(load_model(spec))
            if isinstance(self._teacher, PiecewiseTeacher):
                raise DistilvlError(
                    f"the teacher {self._teacher.name!r} is behind an API, whose limits hold for all workers together.",
                    "Use --engine local, which sends several requests at a time.",
                )
            self._store = FeatureStore.create(store, Manifest.of_teacher(self._teacher))
        except DistilvlError as error:
            self._error = str(error)

    def __call__(self, order: Table) -> Table:
        """Fill the block of `order` (see `order_of`), and say how that went.

        Returns:
            one row: the block's `modality`; how many items of the order are `done` with, and the `count` of those
            that were encoded now; the keys of `bad` images and the `reasons`; and an `error`, empty if there was none.
        """
        row = order.to_pylist()[0]
        result = {"modality": row["modality"], "done": len(row["items"]), "count": 0, "bad": [], "reasons": []}
        result["error"] = self._error
        if not self._error:
            try:
                filled = self._fill(row)
                result |= {"count": filled.count, "bad": list(filled.bad), "reasons": list(filled.bad.values())}
            except DistilvlError as error:
                result["error"] = str(error)
        return _as_table(result)

    def _fill(self, row: dict[str, Any]) -> Extracted:
        keys = row["keys"]
        cut = tuple(keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))
        blocks = [Block(row["modality"], row["number"], cut)]
        # What is done is counted where the results arrive.
        if row["modality"] == "text":
            captions = {item["key"]: item["text"] for item in row["items"]}
            return fill_captions(self._teacher, self._store, blocks, captions, Silence())
        images = {item["key"]: _received(item) for item in row["items"]}
        return fill_images(self._teacher, self._store, blocks, images, Silence(), skip_bad=self._skip_bad)


def _received(item: dict[str, Any]) -> ImageSource:
    return SharedImage(item["text"]) if item["data"] is None else SentImage(item["text"], item["data"])


def _as_table(row: dict[str, Any]) -> Table:
    pa = importlib.import_module("pyarrow")
    types = {"modality": pa.string(), "done": pa.int64(), "count": pa.int64(), "bad": pa.list_(pa.binary())}
    types["reasons"] = pa.list_(pa.string())
    return pa.Table.from_pylist([row], schema=pa.schema({**types, "error": pa.string()}))


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise DistilvlError(
            f"the Ray worker on {socket.gethostname()} cannot enter {folder}: {error.strerror}.",
            "Run the command from a folder on a disk that all machines share, under the same path.",
        ) from error
