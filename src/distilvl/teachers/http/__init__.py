"""A teacher behind an embeddings API: batches, several requests at a time, retries. Needs the extra `api`."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event, wait_random_exponential

from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.pictures import upright_rgb
from distilvl.teachers.base import Arrived, UnansweredError
from distilvl.teachers.http.client import Client, RateLimiter, RefusedError, StoppedError, TransientError
from distilvl.teachers.http.dialects import DIALECTS, BadReplyError, Dialect, Modality
from distilvl.teachers.http.settings import HttpSettings, estimate_line

# How often a reply may be unusable before its items are given up: each one may cost money.
BAD_REPLIES = 3
# How often a server that never replied is tried before we conclude that it is not there.
FIRST_TRIES = 3
# How many items a server that has taken none may refuse before we conclude that it takes none: a few bad ones may come
# first. As many as are under way at once cost nothing more, and others of them may be taken yet.
FIRST_REFUSALS = 3
_LONGEST_BACKOFF_S = 60.0
_AGAIN = "Run the same command again: what has arrived is stored, and only the rest is encoded."
_TAKES_NOTHING = ("has taken nothing yet", "Check the model's name and the other options of the teacher.")
_REMEDY = "Check that item and the options of the teacher; --skip-bad leaves refused images out."


@dataclass
class _Call:
    """The requests of one call of the teacher."""

    client: Client
    modality: Modality
    write: Callable[[int], str]  # item's position -> what the request holds for it (text, or the image's data URI)
    arrived: Arrived  # told of every good reply at once, from the thread that got it
    proven: threading.Event  # whether this server has replied before

    def __post_init__(self) -> None:
        self._settings, self._stop = self.client.settings, self.client.stop
        self._lock = threading.Lock()
        self._refused: dict[int, str] = {}
        backoff = wait_random_exponential(multiplier=self._settings.backoff, max=_LONGEST_BACKOFF_S)
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=self._is_hopeless,
            wait=lambda state: max(backoff(state), getattr(_error(state), "retry_after", 0.0)),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )

    def encode(self, count: int) -> None:
        """Encode items 0 to `count` - 1; raises as `HttpTeacher.deliver_images`."""
        size = self._settings.most(self.modality)
        batches = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
        with ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="teacher") as pool:
            futures = [pool.submit(self._batch, batch) for batch in batches]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # On failure or Ctrl-C nothing more is sent, but what is on its way is still waited for and kept.
                if not all(future.done() and future.exception() is None for future in futures):
                    self._stop.set()
                    for future in futures:
                        future.cancel()
        for future in futures:
            if not future.cancelled():
                future.result()
        if self._refused:
            first, stopped = min(self._refused), self._stop.is_set()
            what, remedy = _TAKES_NOTHING if stopped else ("does not take it", _REMEDY)
            reason = f"the server {what} ({self._refused[first]})"
            raise UnansweredError(sorted(self._refused), reason, remedy, refused=not stopped)

    def _batch(self, positions: list[int]) -> None:
        bad = 0
        while positions:
            try:
                found = self._retrying(self.client.encode, self.modality, [self.write(item) for item in positions])
            except StoppedError:
                return
            except RefusedError as error:
                self._refuse(positions, str(error))
                return
            except TransientError as error:
                raise UnansweredError(positions, f"the server does not answer ({error})", _AGAIN) from error
            except BadReplyError as error:
                bad += 1
                if bad == BAD_REPLIES:
                    reason = f"the server's reply cannot be used, {bad} times in a row: {error}"
                    raise UnansweredError(positions, reason, "Check dim=, model= and the dialect.") from error
                self._stop.wait(self._settings.backoff)
                continue
            bad = 0
            self.proven.set()
            self.arrived([positions[k] for k in found], np.stack(list(found.values())))
            positions = [position for k, position in enumerate(positions) if k not in found]

    def _refuse(self, positions: list[int], reason: str) -> None:
        """Find out which items are not taken, by halves; one bad item must not cost its neighbours."""
        if len(positions) > 1:
            middle = len(positions) // 2
            self._batch(positions[:middle])
            self._batch(positions[middle:])
            return
        with self._lock:
            self._refused[positions[0]] = reason
            hopeless = len(self._refused) >= max(FIRST_REFUSALS, self._settings.concurrency)
        if hopeless and not self.proven.is_set():
            self._stop.set()

    def _is_hopeless(self, state: RetryCallState) -> bool:
        unreachable = getattr(_error(state), "unreachable", False) and not self.proven.is_set()
        tries = self._settings.retries + 1
        return state.attempt_number >= (min(FIRST_TRIES, tries) if unreachable else tries)


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


class HttpTeacher:
    """A `Teacher` and a `PiecewiseTeacher`: every embedding is passed on the moment it arrives.

    Requests run on `concurrency` threads. Overload (429), server errors, lost connections and silence are tried again
    with growing pauses; of a reply that lacks items the rest is requested again; embeddings of a wrong dimension, that
    are not finite or all zero are refused. The key comes from the environment and goes nowhere but into the header.
    """

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.name, self.revision, self.dim = settings.model, settings.revision, settings.dim
        self.preprocessing = settings.preprocessing
        self._key = settings.key()
        self._limiter = RateLimiter(settings.rpm)
        self._proven = threading.Event()

    def __repr__(self) -> str:
        return f"HttpTeacher({self.name!r}, dim={self.dim}, url={self.settings.url!r})"

    @classmethod
    def from_spec(cls, spec: str) -> HttpTeacher:
        """The teacher that `openai+https://host/v1?model=NAME&dim=D` names; see `HttpSettings.from_spec`."""
        return cls(HttpSettings.from_spec(spec))

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """RGB images to float32 embeddings as the API gave them, shape (n, dim); raises as `deliver_images`."""
        return self._gather(list_of_images(images), self.deliver_images)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts to float32 embeddings, shape (n, dim); raises as `deliver_texts`."""
        return self._gather(list_of_texts(texts), self.deliver_texts)

    def deliver_images(self, images: Sequence[Image.Image], arrived: Arrived) -> None:
        """Encode `images`; `arrived` gets positions and embeddings, from several threads.

        `UnansweredError` for images that the server refuses, or that got no usable reply in all tries.
        """
        images = list_of_images(images)
        self._encode("image", len(images), lambda item: self._data_uri(images[item]), arrived)

    def deliver_texts(self, texts: Sequence[str], arrived: Arrived) -> None:
        """Encode `texts`; otherwise as `deliver_images`."""
        texts = list_of_texts(texts)
        self._encode("text", len(texts), lambda item: texts[item], arrived)

    def estimate(self, images: int, texts: Sequence[str]) -> str:
        """Requests, time and price of encoding so much: one line."""
        return estimate_line(self.settings, images, texts)

    def _encode(self, modality: Modality, count: int, write: Callable[[int], str], arrived: Arrived) -> None:
        with Client(self.settings, self._key, self._limiter, threading.Event()) as client:
            _Call(client, modality, write, arrived, self._proven).encode(count)

    def _gather(self, items: list[Any], encode: Callable[[Any, Arrived], None]) -> npt.NDArray[np.float32]:
        embeddings = np.zeros((len(items), self.dim), dtype=np.float32)

        def arrived(positions: Sequence[int], found: npt.NDArray[np.float32]) -> None:
            embeddings[list(positions)] = found

        encode(items, arrived)
        return embeddings

    def _data_uri(self, image: Image.Image) -> str:
        image = upright_rgb(image, "the picture")
        side = self.settings.max_side
        if side is not None and max(image.size) > side:
            image = image.copy()
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        # Sending takes longer than compressing a little less does.
        options = {"compress_level": 1} if self.settings.image_format == "png" else {"quality": 95}
        image.save(buffer, self.settings.image_format, **options)
        return f"data:image/{self.settings.image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


__all__ = ["DIALECTS", "Dialect", "HttpSettings", "HttpTeacher"]
