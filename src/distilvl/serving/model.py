"""`ServedModel`: one model for all requests, whose texts and pictures are joined into batches by one thread."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from distilvl.models.encoder import Encoder
from distilvl.serving.batcher import BatchedEncoder, Batcher, Embeddings, UnencodableError
from distilvl.serving.errors import RequestError
from distilvl.serving.middleware import ConcurrencyLimit, Metrics
from distilvl.serving.picture_strings import count_pixels, decode_picture, picture_bytes
from distilvl.serving.requests import Item, Modality
from distilvl.serving.settings import ServeSettings

# Decoded pictures of four of the largest, or of many small ones, wait at a time.
_LARGEST_HELD = 4
T = TypeVar("T")


class ServedModel:
    """An encoder behind a batcher, for the event loop; `name` is what clients call it."""

    def __init__(self, encoder: Encoder, name: str, settings: ServeSettings, metrics: Metrics) -> None:
        self.name, self.dim, self.revision, self.dims = name, encoder.dim, encoder.revision, encoder.dims
        self._max_pixels = settings.max_pixels

        def observe(modality: Modality, items: int, seconds: float) -> None:
            metrics.batch_items.labels(modality).observe(items)
            metrics.batch_seconds.labels(modality).observe(seconds)

        self.batcher = Batcher(encoder, settings.max_batch, settings.max_wait_ms / 1000, observe)
        self.encoder = BatchedEncoder(encoder, self.batcher)
        self._items = ConcurrencyLimit("items", settings.max_queue, metrics.waiting.set)
        self._pixels = ConcurrencyLimit("pictures", _LARGEST_HELD * settings.max_pixels)
        # More threads than cores would only take memory: each thread's allocator keeps what it once had.
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decoder")

    def close(self) -> None:
        """Encode what has been submitted, and end all threads; a picture that is being decoded is waited for."""
        self.batcher.close()
        self._decoders.shutdown(cancel_futures=True)

    async def encode(self, items: Sequence[Item]) -> Embeddings:
        """Embeddings of `items` in their order, L2-normalised, float32, shape (n, dim).

        `RequestError`: a picture is refused (413, 422), the model fails at an item (500), too much is under way (503).
        """
        async with self.admitted(items) as values:
            found = np.empty((len(items), self.dim), np.float32)
            await asyncio.gather(*(self._encode(modality, items, values, found) for modality in ("image", "text")))
            return found

    @contextlib.asynccontextmanager
    async def admitted(self, items: Sequence[Item]) -> AsyncIterator[list[Any]]:
        """`items` within the concurrency limits: texts as they are, pictures decoded once all are known to fit.

        Raises `RequestError` as `encode`.
        """
        with self._items.hold() as add_items, contextlib.ExitStack() as held:
            add_items(len(items))
            add_pixels = held.enter_context(self._pixels.hold())
            values: list[Any] = [item.value for item in items]
            pictures = [(place, item.param) for place, item in enumerate(items) if item.modality == "image"]
            for place, param in pictures:
                values[place] = await self._in_decoder(held, picture_bytes, values[place], param)
                add_pixels(await self._in_decoder(held, count_pixels, values[place], self._max_pixels, param))
            for place, param in pictures:
                values[place] = await self._in_decoder(held, decode_picture, values[place], param)
            yield values

    async def _in_decoder(self, held: contextlib.ExitStack, work: Callable[..., T], *args: Any) -> T:
        """`work` in a decoder's thread; where nobody waits for it any more, what is `held` counts until it ends."""
        running, loop = self._decoders.submit(work, *args), asyncio.get_running_loop()
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            if not running.cancel():  # a thread cannot be stopped
                kept = held.pop_all()

                def give_back(_: object) -> None:
                    with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
                        loop.call_soon_threadsafe(kept.close)

                running.add_done_callback(give_back)
            raise

    async def _encode(self, modality: Modality, items: Sequence[Item], values: list[Any], found: Embeddings) -> None:
        """Encode those of one modality into their places in `found`."""
        places = [place for place, item in enumerate(items) if item.modality == modality]
        submitted = self.batcher.submit(modality, [values[place] for place in places])
        try:
            encoded: Embeddings = await asyncio.wrap_future(submitted)
        except UnencodableError as error:
            param = items[places[error.position]].param
            raise RequestError(500, f"The model fails at {param}.", code="unencodable", param=param) from error
        found[places] = encoded


def shortened(embeddings: Embeddings, dim: int) -> Embeddings:
    """The first `dim` values of each embedding, L2-normalised again; embeddings of that dimension as they are."""
    if dim == embeddings.shape[1]:
        return embeddings
    cut = embeddings[:, :dim]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)
