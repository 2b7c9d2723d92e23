"""A model behind an embeddings API as a teacher."""

from __future__ import annotations

import base64
import importlib.util
import io
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.lists import list_of_images, list_of_texts
from distilvl.pictures import upright_rgb
from distilvl.teachers.http.dialects import Modality
from distilvl.teachers.http.estimate import estimate_line
from distilvl.teachers.http.pace import Pace
from distilvl.teachers.http.settings import HttpSettings
from distilvl.teachers.piecewise import Arrived


class HttpTeacher:
    """A `Teacher` and a `PiecewiseTeacher`: every answer is passed on the moment it arrives.

    Requests run on `concurrency` threads. Overload (429), server errors, lost connections and silence are tried again
    with growing pauses; of an answer that lacks items the rest is asked again; rows of a wrong width, that are not
    finite or all zero are refused. The key comes from the environment and goes nowhere but into the request's header.

    Args:
        settings: what the spec said.

    Raises:
        DistilvlError: the extra `api` is not installed, or the key's variable is not set.
    """

    def __init__(self, settings: HttpSettings) -> None:
        missing = [name for name in ("httpx", "tenacity") if importlib.util.find_spec(name) is None]
        if missing:
            raise DistilvlError(
                f"teachers behind an API need {' and '.join(missing)}.", "Run: pip install 'distilvl[api]'"
            )
        self.settings = settings
        self.name, self.revision, self.dim = settings.model, settings.revision, settings.dim
        self.preprocessing = settings.preprocessing
        self._key = settings.key()
        self._pace = Pace(settings.rpm)
        self._proven = threading.Event()

    @classmethod
    def from_spec(cls, spec: str) -> HttpTeacher:
        """The teacher that `openai+https://host/v1?model=NAME&dim=WIDTH` names.

        Raises:
            DistilvlError: see `HttpSettings.from_spec` and this class.
        """
        return cls(HttpSettings.from_spec(spec))

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """RGB images to float32 rows as the API gave them, shape (n, dim); raises as `ask_images`."""
        images = list_of_images(images)
        return self._gather(len(images), lambda arrived: self.ask_images(images, arrived))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts to float32 rows, shape (n, dim); raises as `ask_texts`."""
        texts = list_of_texts(texts)
        return self._gather(len(texts), lambda arrived: self.ask_texts(texts, arrived))

    def ask_images(self, images: Sequence[Image.Image], arrived: Arrived) -> None:
        """Ask for `images`; `arrived` gets positions and rows, from several threads.

        Raises:
            UnansweredError: images that the server refuses, or that got no usable answer in all tries.
            DistilvlError: no request to this server can succeed.
        """
        images = list_of_images(images)
        self._ask("image", len(images), lambda item: self._data_uri(images[item]), arrived)

    def ask_texts(self, texts: Sequence[str], arrived: Arrived) -> None:
        """Ask for `texts`; otherwise as `ask_images`."""
        texts = list_of_texts(texts)
        self._ask("text", len(texts), lambda item: texts[item], arrived)

    def estimate(self, images: int, texts: Sequence[str]) -> str:
        """Requests, time and price of asking for so much: one line."""
        return estimate_line(self.settings, images, texts)

    def _ask(self, modality: Modality, count: int, write: Callable[[int], str], arrived: Arrived) -> None:
        from distilvl.teachers.http.crew import Crew
        from distilvl.teachers.http.exchange import Exchange

        stop = threading.Event()
        with Exchange(self.settings, self._key, self._pace, stop) as exchange:
            Crew(self.settings, exchange, stop, modality, write, arrived, self._proven).answer(count)

    def _gather(self, count: int, ask: Callable[[Arrived], None]) -> npt.NDArray[np.float32]:
        rows = np.zeros((count, self.dim), dtype=np.float32)

        def arrived(positions: Sequence[int], found: npt.NDArray[np.float32]) -> None:
            rows[list(positions)] = found

        ask(arrived)
        return rows

    def _data_uri(self, image: Image.Image) -> str:
        image = upright_rgb(image, "the picture")
        side = self.settings.max_side
        if side is not None and max(image.size) > side:
            image = image.copy()
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        if self.settings.image_format == "png":
            # Sending takes longer than compressing a little less does.
            image.save(buffer, "PNG", compress_level=1)
        else:
            image.save(buffer, "JPEG", quality=95)
        return f"data:image/{self.settings.image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
