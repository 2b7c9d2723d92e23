"""`ServedModel`: one model for all requests, whose texts and pictures are joined into batches by one thread."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from anyio import CapacityLimiter, to_thread
from PIL import Image

from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.models.encoder import Encoder
from distilvl.serving.errors import RequestError
from distilvl.serving.middleware import ConcurrencyLimit, Metrics
from distilvl.serving.picture_strings import count_pixels, decode_picture, picture_bytes
from distilvl.serving.requests import Item, Modality
from distilvl.serving.settings import ServeSettings

logger = logging.getLogger("distilvl")

Embeddings = npt.NDArray[np.float32]
# Decoded pictures of four of the largest, or of many small ones, wait at a time.
_LARGEST_HELD = 4


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
        self._decoders = CapacityLimiter(os.cpu_count() or 1)

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
        with self._items.hold() as add_items, self._pixels.hold() as add_pixels:
            add_items(len(items))
            values: list[Any] = [item.value for item in items]
            pictures = [(place, item.param) for place, item in enumerate(items) if item.modality == "image"]
            for place, param in pictures:
                values[place] = await to_thread.run_sync(picture_bytes, values[place], param, limiter=self._decoders)
            for place, param in pictures:
                add_pixels(count_pixels(values[place], self._max_pixels, param))
            for place, param in pictures:
                values[place] = await to_thread.run_sync(decode_picture, values[place], param, limiter=self._decoders)
            yield values

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


class UnencodableError(Exception):
    """The model fails at one item, alone; `position` is its place among those submitted."""

    def __init__(self, position: int) -> None:
        super().__init__(f"item {position} cannot be encoded")
        self.position = position


@dataclass(eq=False)
class _Job:
    """One submission: its embeddings arrive in one batch or in several."""

    embeddings: Embeddings
    left: int
    future: Future[Embeddings] = field(default_factory=Future)


class _Entry(NamedTuple):
    """One item of a job."""

    job: _Job
    position: int
    item: Any
    arrived: float


class Batcher:
    """Joins what several threads submit into batches of one modality, first come first served.

    A batch starts when it is full, or when its oldest item has waited `max_wait` seconds. While one is encoded the
    next one gathers, so that under load nobody waits for the clock. When the model fails at a batch, its halves are
    tried, down to the one item that is at fault: the others get their embeddings.

    `encoder` is called from the worker thread only. `observe` is told of every batch: modality, items, seconds.
    """

    def __init__(
        self, encoder: Encoder, max_batch: int, max_wait: float, observe: Callable[[Modality, int, float], None]
    ) -> None:
        self._encoder, self._max_batch, self._max_wait, self._observe = encoder, max_batch, max_wait, observe
        self._waiting: dict[Modality, deque[_Entry]] = {"image": deque(), "text": deque()}
        self._changed, self._closing = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._worker.start()

    def submit(self, modality: Modality, items: Sequence[str] | Sequence[Image.Image]) -> Future[Embeddings]:
        """A future of embeddings in the order of `items`, float32, shape (n, dim); it fails with `UnencodableError`.

        Cancelled, it costs no more work than the batch that is under way. Raises `NotAListError` for one item instead
        of a list, and `RuntimeError` after `close`.
        """
        items = list_of_images(items) if modality == "image" else list_of_texts(items)  # type: ignore[arg-type]
        job = _Job(np.empty((len(items), self._encoder.dim), np.float32), len(items))
        now = time.monotonic()
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            if not items:
                job.future.set_result(job.embeddings)
            # Here too, so that they do not pile up behind a model that hangs.
            self._drop_abandoned()
            self._waiting[modality].extend(_Entry(job, position, item, now) for position, item in enumerate(items))
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Encode what has been submitted, then end the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._worker.join()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            self._encode(*found)

    def _next(self) -> tuple[Modality, list[_Entry]] | None:
        """Wait for a batch; None when closed and done."""
        with self._changed:
            while True:
                self._drop_abandoned()
                heads: list[tuple[float, Modality]] = [(q[0].arrived, name) for name, q in self._waiting.items() if q]
                if not heads:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                arrived, modality = min(heads)  # the one that has waited longest
                waiting = self._waiting[modality]
                left = arrived + self._max_wait - time.monotonic()
                if len(waiting) >= self._max_batch or left <= 0 or self._closing:
                    return modality, [waiting.popleft() for _ in range(min(len(waiting), self._max_batch))]
                self._changed.wait(left)

    def _drop_abandoned(self) -> None:
        """Let go of first items for which nobody waits any more; those that came first are given up first."""
        for waiting in self._waiting.values():
            while waiting and waiting[0].job.future.done():
                waiting.popleft()

    def _encode(self, modality: Modality, entries: list[_Entry]) -> None:
        entries = [entry for entry in entries if not entry.job.future.done()]
        if not entries:
            return
        start, expected = time.perf_counter(), (len(entries), self._encoder.dim)
        encode = self._encoder.encode_images if modality == "image" else self._encoder.encode_texts
        try:
            embeddings = np.asarray(encode([entry.item for entry in entries]), dtype=np.float32)
            if embeddings.shape != expected or not np.isfinite(embeddings).all():
                raise ValueError(f"shape {embeddings.shape}, not {expected}, or not finite")
        except Exception:  # whatever a model raises; which item it is about only trying tells
            if (middle := len(entries) // 2) > 0:
                self._encode(modality, entries[:middle])
                self._encode(modality, entries[middle:])
                return
            logger.exception("the model fails at %s", modality)
            with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
                entries[0].job.future.set_exception(UnencodableError(entries[0].position))
            return
        self._observe(modality, len(entries), time.perf_counter() - start)
        for entry, embedding in zip(entries, embeddings, strict=True):
            job = entry.job
            job.embeddings[entry.position] = embedding
            job.left -= 1
            if job.left == 0:
                with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
                    job.future.set_result(job.embeddings)


class BatchedEncoder(Encoder):
    """`encoder`, called through a batcher: from any number of threads, such as those of an index's searches."""

    def __init__(self, encoder: Encoder, batcher: Batcher) -> None:
        super().__init__(encoder, encoder.spec)
        self._batcher = batcher

    def encode_images(self, images: Sequence[Image.Image]) -> Embeddings:
        """RGB images to L2-normalised embeddings, shape (n, D); raises `UnencodableError` and `NotAListError`."""
        return self._batcher.submit("image", images).result()

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Texts to L2-normalised embeddings, shape (n, D); raises `UnencodableError` and `NotAListError`."""
        return self._batcher.submit("text", texts).result()


def shortened(embeddings: Embeddings, dim: int) -> Embeddings:
    """The first `dim` values of each embedding, L2-normalised again; embeddings of that dimension as they are."""
    if dim == embeddings.shape[1]:
        return embeddings
    cut = embeddings[:, :dim]
    return np.asarray(cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12), np.float32)
