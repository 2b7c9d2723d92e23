"""`Batcher`: texts and pictures of all requests, joined into batches by the one thread that calls the model."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.models.encoder import Encoder
from distilvl.serving.requests import Modality

logger = logging.getLogger("distilvl")

Embeddings = npt.NDArray[np.float32]
# A tokenizer goes through all of a text before it cuts it; so many characters for each token that the model reads are
# more than any language needs.
_CHARACTERS_A_TOKEN = 64
# A batch takes no more pictures after so many pixels: they are resized in it, and texts wait for that.
_PIXELS_A_BATCH = 1 << 24


class UnencodableError(Exception):
    """The model fails at one item, alone; `position` is its place among those submitted."""

    def __init__(self, position: int) -> None:
        super().__init__(f"item {position} cannot be encoded")
        self.position = position


@dataclass(eq=False)
class _Job:
    """One submission: its embeddings arrive in one batch or in several."""

    embeddings: Embeddings
    arrived: float
    waiting: deque["_Entry"] = field(default_factory=deque)  # those of its items that no batch has taken yet
    left: int = 0
    future: Future[Embeddings] = field(default_factory=Future)


class _Entry(NamedTuple):
    """One item of a job."""

    job: _Job
    position: int
    item: Any


class Batcher:
    """Joins what several threads submit into batches of one modality, in turns: one item of each submission, and again.

    So a few items do not wait behind hundreds of another submission. Of two modalities that are due it is the other
    one's turn. A batch starts when it is full, or when its oldest item has waited `max_wait` seconds. While one is
    encoded the next one gathers, so that under load nobody waits for the clock. When the model fails at a batch, its
    halves are tried, down to the one item that is at fault: the others get their embeddings.

    `encoder` is called from the worker thread only. `observe` is told of every batch: modality, items, seconds.
    """

    def __init__(
        self, encoder: Encoder, max_batch: int, max_wait: float, observe: Callable[[Modality, int, float], None]
    ) -> None:
        self._encoder, self._max_batch, self._max_wait, self._observe = encoder, max_batch, max_wait, observe
        self._longest = None if encoder.max_length is None else _CHARACTERS_A_TOKEN * encoder.max_length
        self._waiting: dict[Modality, deque[_Job]] = {"image": deque(), "text": deque()}
        self._last: Modality = "text"
        self._changed, self._closing = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._worker.start()

    def submit(self, modality: Modality, items: Sequence[str] | Sequence[Image.Image]) -> Future[Embeddings]:
        """A future of embeddings in the order of `items`, float32, shape (n, dim); it fails with `UnencodableError`.

        Cancelled, it costs no more work than the batch that is under way. Raises `NotAListError` for one item instead
        of a list, and `RuntimeError` after `close`.
        """
        values: list[Any] = list_of_images(items) if modality == "image" else list_of_texts(items)  # type: ignore[arg-type]
        if modality == "text":
            values = [text[: self._longest] for text in values]
        job = _Job(np.empty((len(items), self._encoder.dim), np.float32), time.monotonic(), left=len(values))
        job.waiting.extend(_Entry(job, position, item) for position, item in enumerate(values))
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            # Here too, so that they do not pile up behind a model that hangs.
            self._drop_abandoned()
            if values:
                self._waiting[modality].append(job)
            else:
                job.future.set_result(job.embeddings)
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
                due = {name: self._due(jobs) for name, jobs in self._waiting.items() if jobs}
                if due:
                    # The one that is due first; of several that are, the one whose turn it is.
                    modality = min(due, key=lambda name: (due[name], name == self._last))
                    if (left := due[modality]) <= 0:
                        self._last = modality
                        return modality, self._taken(self._waiting[modality])
                    self._changed.wait(left)
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _due(self, jobs: deque[_Job]) -> float:
        """Seconds until a batch of these starts; 0 where it does now."""
        if self._closing or sum(len(job.waiting) for job in jobs) >= self._max_batch:
            return 0.0
        return max(0.0, min(job.arrived for job in jobs) + self._max_wait - time.monotonic())

    def _taken(self, jobs: deque[_Job]) -> list[_Entry]:
        """The items of a batch: one of each job in turn."""
        taken: list[_Entry] = []
        pixels = 0
        while jobs and len(taken) < self._max_batch and pixels < _PIXELS_A_BATCH:
            job = jobs.popleft()
            if job.future.done():  # nobody waits for it any more
                continue
            taken.append(job.waiting.popleft())
            if isinstance(item := taken[-1].item, Image.Image):
                pixels += item.width * item.height
            if job.waiting:
                jobs.append(job)
        return taken

    def _drop_abandoned(self) -> None:
        """Let go of what nobody waits for any more."""
        for jobs in self._waiting.values():
            if any(job.future.done() for job in jobs):
                kept = [job for job in jobs if not job.future.done()]
                jobs.clear()
                jobs.extend(kept)

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
