"""What the server counts, for Prometheus."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as _latest

from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.models.encoder import Encoder

logger = logging.getLogger("distilvl")

Modality = Literal["image", "text"]
Rows = npt.NDArray[np.float32]
Observe = Callable[[Modality, int, float], None]


class UnencodableError(Exception):
    """The model fails at one item, alone; `position` is its place among those submitted."""

    def __init__(self, position: int) -> None:
        super().__init__(f"item {position} cannot be encoded")
        self.position = position


@dataclass(eq=False)
class _Job:
    """One submission: its rows arrive in one batch or in several."""

    rows: Rows
    left: int
    future: Future[Rows] = field(default_factory=Future)


@dataclass(frozen=True, eq=False)
class _Entry:
    """One item of a job."""

    job: _Job
    position: int
    item: Any
    arrived: float


class Batcher:
    """Joins what several threads submit into batches of one modality, first come first served.

    A batch starts when it is full, or when its oldest item has waited `max_wait` seconds. While one is encoded the
    next one gathers, so that under load nobody waits for the clock. When the model fails at a batch, its halves are
    tried, down to the one item that is at fault: the others get their rows.

    Args:
        encoder: the model; called from the worker thread only.
        max_batch: items a batch.
        max_wait: seconds.
        observe: told of every batch that was encoded: modality, items, seconds.
    """

    def __init__(self, encoder: Encoder, max_batch: int, max_wait: float, observe: Observe) -> None:
        self._encoder, self._max_batch, self._max_wait, self._observe = encoder, max_batch, max_wait, observe
        self._waiting: dict[Modality, deque[_Entry]] = {"image": deque(), "text": deque()}
        self._changed = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._worker.start()

    def submit(self, modality: Modality, items: Sequence[str] | Sequence[Image.Image]) -> Future[Rows]:
        """Have `items` encoded.

        Returns:
            Future of rows in the order of `items`, float32, shape (n, dim). Cancelled, it costs no more work than the
            batch that is under way. It fails with `UnencodableError`.

        Raises:
            NotAListError: one item instead of a list.
            RuntimeError: after `close`.
        """
        items = list_of_images(items) if modality == "image" else list_of_texts(items)  # type: ignore[arg-type]
        job = _Job(np.empty((len(items), self._encoder.dim), np.float32), len(items))
        now = time.monotonic()
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            if not items:
                job.future.set_result(job.rows)
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
                modality = self._oldest()
                if modality is None:
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                waiting = self._waiting[modality]
                left = waiting[0].arrived + self._max_wait - time.monotonic()
                if len(waiting) >= self._max_batch or left <= 0 or self._closing:
                    return modality, [waiting.popleft() for _ in range(min(len(waiting), self._max_batch))]
                self._changed.wait(left)

    def _drop_abandoned(self) -> None:
        """Let go of first items for which nobody waits any more; those that came first are given up first."""
        for waiting in self._waiting.values():
            while waiting and waiting[0].job.future.done():
                waiting.popleft()

    def _oldest(self) -> Modality | None:
        """The modality whose first item has waited longest."""
        self._drop_abandoned()
        heads: list[tuple[float, Modality]] = [(q[0].arrived, name) for name, q in self._waiting.items() if q]
        return min(heads)[1] if heads else None

    def _encode(self, modality: Modality, entries: list[_Entry]) -> None:
        entries = [entry for entry in entries if not entry.job.future.done()]
        if not entries:
            return
        start = time.perf_counter()
        try:
            rows = self._rows(modality, [entry.item for entry in entries])
        except Exception:  # whatever a model raises; which item it is about only trying tells
            if len(entries) == 1:
                logger.exception("the model fails at %s", modality)
                _fail(entries[0])
                return
            middle = len(entries) // 2
            self._encode(modality, entries[:middle])
            self._encode(modality, entries[middle:])
            return
        self._observe(modality, len(entries), time.perf_counter() - start)
        for entry, row in zip(entries, rows, strict=True):
            _deliver(entry, row)

    def _rows(self, modality: Modality, items: list[Any]) -> Rows:
        encode = self._encoder.encode_images if modality == "image" else self._encoder.encode_texts
        rows = np.asarray(encode(items), dtype=np.float32)
        if rows.shape != (len(items), self._encoder.dim) or not np.isfinite(rows).all():
            raise ValueError(f"rows of shape {rows.shape}, not {(len(items), self._encoder.dim)}, or not finite")
        return rows


def _deliver(entry: _Entry, row: Rows) -> None:
    job = entry.job
    job.rows[entry.position] = row
    job.left -= 1
    if job.left == 0:
        with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
            job.future.set_result(job.rows)


def _fail(entry: _Entry) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
        entry.job.future.set_exception(UnencodableError(entry.position))


class BatchedEncoder(Encoder):
    """A batcher's model for other threads, such as an index's searches: any number of calls at a time.

    Args:
        encoder: the model, for its name, revision and width.
        batcher: what encodes.
    """

    def __init__(self, encoder: Encoder, batcher: Batcher) -> None:
        super().__init__(encoder, encoder.spec)
        self._batcher = batcher

    def encode_images(self, images: Sequence[Image.Image]) -> Rows:
        """RGB images to unit rows, shape (n, D); raises `UnencodableError` and `NotAListError`."""
        return self._batcher.submit("image", images).result()

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """Texts to unit rows, shape (n, D); raises `UnencodableError` and `NotAListError`."""
        return self._batcher.submit("text", texts).result()


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "distilvl_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "distilvl_request_seconds", "From header to end of answer.", ("route",), registry=registry, buckets=_SECONDS
        )
        self._batch_items = Histogram(
            "distilvl_batch_items", "Items a batch of the model.", ("modality",), registry=registry, buckets=_ITEMS
        )
        self._batch_seconds = Histogram(
            "distilvl_batch_seconds",
            "Seconds a batch of the model.",
            ("modality",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._waiting = Gauge("distilvl_items_waiting", "Items waiting or being encoded.", registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, modality: Modality, items: int, seconds: float) -> None:
        """The model encoded a batch."""
        self._batch_items.labels(modality).observe(items)
        self._batch_seconds.labels(modality).observe(seconds)

    def waiting(self, items: int) -> None:
        """So many items are under way."""
        self._waiting.set(items)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return _latest(self._registry)
