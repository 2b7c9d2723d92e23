"""The model as the routes see it: items in, rows out, within the bounds of what may be under way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from PIL import Image

from distilvl.models.encoder import Encoder
from distilvl.serving.batching import BatchedEncoder, Batcher, Metrics, Modality, Rows, UnencodableError
from distilvl.serving.encoded import count_pixels, decode_picture
from distilvl.serving.errors import Fault
from distilvl.serving.items import Item
from distilvl.serving.limits import Room, ServeSettings
from distilvl.serving.spelling import picture_bytes

T = TypeVar("T")

# Decoded pictures of four of the largest, or of many small ones, wait at a time.
_LARGEST_HELD = 4


class ServedModel:
    """An encoder behind a batcher.

    Args:
        encoder: the model.
        name: what clients call it.
        settings: limits.
        metrics: told of batches and of what waits.
    """

    def __init__(self, encoder: Encoder, name: str, settings: ServeSettings, metrics: Metrics) -> None:
        self.name, self.dim, self.revision = name, encoder.dim, encoder.revision
        self.widths = encoder.widths
        self._settings = settings
        self._batcher = Batcher(encoder, settings.max_batch, settings.max_wait_ms / 1000, metrics.batch)
        self.encoder = BatchedEncoder(encoder, self._batcher)
        self._items = Room("items", settings.max_queue, metrics.waiting)
        self._decoders = CapacityLimiter(os.cpu_count() or 1)
        self._pixels = Room("pictures", _LARGEST_HELD * settings.max_pixels)

    async def rows(self, items: Sequence[Item]) -> Rows:
        """Unit rows of `items` in their order, float32, shape (n, dim).

        Raises:
            Fault: a picture that is refused (413, 422), an item at which the model fails (500), no room (503).
        """
        images = [item for item in items if item.modality == "image"]
        async with self._room(len(items), images) as pictures:
            rows = np.empty((len(items), self.dim), np.float32)
            texts = [item.value for item in items if item.modality == "text"]
            await asyncio.gather(self._encode("image", pictures, items, rows), self._encode("text", texts, items, rows))
            return rows

    @asynccontextmanager
    async def picture(self, uri: str | None, param: str) -> AsyncIterator[Image.Image | None]:
        """Room for one search, and its picture decoded, if it has one; raises as `rows`."""
        async with self._room(1, [] if uri is None else [Item("image", uri, param)]) as pictures:
            yield pictures[0] if pictures else None

    @asynccontextmanager
    async def _room(self, count: int, images: Sequence[Item]) -> AsyncIterator[list[Image.Image]]:
        """Room for `count` items; those that are pictures are decoded, once all are known to fit."""
        with self._items.take() as add_items, self._pixels.take() as add_pixels:
            add_items(count)
            encoded = [await self._in_thread(picture_bytes, item.value, item.param) for item in images]
            for data, item in zip(encoded, images, strict=True):
                add_pixels(count_pixels(data, self._settings.max_pixels, item.param))
            yield [
                await self._in_thread(decode_picture, data, item.param)
                for data, item in zip(encoded, images, strict=True)
            ]

    async def _in_thread(self, work: Callable[[Any, str], T], data: Any, param: str) -> T:
        """`work` on a picture, beside the event loop, with as many others as there are cores.

        More would only take memory: each thread's allocator keeps what it once had.
        """
        return await to_thread.run_sync(work, data, param, limiter=self._decoders)

    def close(self) -> None:
        """Finish what is under way."""
        self._batcher.close()

    async def _encode(
        self, modality: Modality, values: Sequence[str] | Sequence[Image.Image], items: Sequence[Item], rows: Rows
    ) -> None:
        places = [place for place, item in enumerate(items) if item.modality == modality]
        try:
            encoded: Rows = await asyncio.wrap_future(self._batcher.submit(modality, values))
        except UnencodableError as error:
            param = items[places[error.position]].param
            raise Fault(500, f"The model fails at {param}.", code="unencodable", param=param) from error
        rows[places] = encoded


def shortened(rows: Rows, width: int) -> Rows:
    """The first `width` values of each row, at unit length; rows of that width as they are."""
    if width == rows.shape[1]:
        return rows
    cut = rows[:, :width]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)
