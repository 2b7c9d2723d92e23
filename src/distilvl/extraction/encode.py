"""Images and captions through a teacher: prefetched, checked, by key;
what is paid for is stored the moment it arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.crops import ViewedImage
from distilvl.data.left_out import NOT_DECODED
from distilvl.data.records import ImageSource
from distilvl.errors import BadImageError, DistilvlError
from distilvl.features.pending import Answers
from distilvl.features.shards import Modality, storable_rows
from distilvl.features.store import FeatureStore
from distilvl.io.hashes import image_key
from distilvl.io.progress import Ticker
from distilvl.pictures import decode_image
from distilvl.teachers.base import PiecewiseTeacher, Teacher, UnansweredError
from distilvl.teachers.checks import bare, look_at_first
from distilvl.teachers.outputs import answered, ask, named, said, who

# What one call of the teacher may hold: enough for any batch, few enough for a lively progress bar, and of
# large pictures no more than 0.75 GB of RGB. Calls never cross a shard, so a resumed run makes the same ones.
IMAGES_A_CALL = 128
PIXELS_A_CALL = 1 << 28


@dataclass
class ImageCall:
    """What a teacher is shown at once.

    Attributes:
        keys: of the images that could be decoded.
        images: those images, RGB.
        names: what an error message calls each of them.
        bad: keys of images between them that could not be decoded, with the reason.
    """

    keys: list[bytes] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    bad: dict[bytes, str] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """Of all its images."""
        return sum(image.width * image.height for image in self.images)


def image_calls(sources: Sequence[tuple[bytes, ImageSource]], *, skip_bad: bool) -> Iterator[ImageCall]:
    """Calls that hold all images of `sources`, in order.

    Raises:
        BadImageError: an image that cannot be read or decoded, unless `skip_bad`.
        DistilvlError: an image whose bytes are not those of its key any more.
    """
    call = ImageCall()
    for key, source in sources:
        try:
            image = _decoded(source, key)
        except BadImageError as error:
            if not skip_bad:
                raise
            call.bad[key] = error.reason or NOT_DECODED
            continue
        if call.images and call.pixels + image.width * image.height > PIXELS_A_CALL:
            yield call
            call = ImageCall()
        call.keys.append(key)
        call.images.append(image)
        call.names.append(source.name)
        if len(call.images) == IMAGES_A_CALL:
            yield call
            call = ImageCall()
    yield call


def _decoded(source: ImageSource, key: bytes) -> Image.Image:
    data = source.read()
    whole = source.image_key if isinstance(source, ViewedImage) else key
    if image_key(data) != whole:
        raise DistilvlError(
            f"image {source.name} changed while it was being read.",
            "Run the command again when it is at rest.",
        )
    image = decode_image(data, source.name)
    return source.view.of(image) if isinstance(source, ViewedImage) else image


Row = npt.NDArray[Any]


class Asker:
    """Asks `teacher` about items of one modality.

    Args:
        teacher: any; of a `PiecewiseTeacher` every answer is kept on disk until `settle`.
        store: where the rows will go; gives the width.
        modality: of all items.
        ticker: told of every answer.
        skip_refused: leave out items that the teacher does not take, instead of raising.
        tried: its first answers have been looked at (`look_at_first`).

    Attributes:
        refused: keys of the items left out.
        asked: number of items answered now; those of an interrupted run do not count.
    """

    def __init__(
        self,
        teacher: Teacher,
        store: FeatureStore,
        modality: Modality,
        ticker: Ticker,
        *,
        skip_refused: bool = False,
        tried: bool = False,
    ) -> None:
        self._teacher, self._store, self._modality = bare(teacher), store, modality
        self._ticker, self._skip_refused, self._tried = ticker, skip_refused, tried
        self._answers = Answers(store, modality) if isinstance(teacher, PiecewiseTeacher) else None
        self._lock = threading.Lock()
        self.refused: list[bytes] = []
        self.asked = 0

    def kept(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Those of `keys` that an interrupted run has been answered, with their rows."""
        if self._answers is None:
            return {}
        wanted = set(keys)
        found = {key: row for key, row in self._answers.load().items() if key in wanted}
        self._ticker.advance(len(found))
        return found

    def settle(self) -> None:
        """Forget the answers that are in shards now."""
        if self._answers is not None:
            self._answers.drop_stored()

    def ask(self, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]) -> dict[bytes, Row]:
        """The teacher's rows for `items`: key -> row, shape (D,), as the teacher returned it.

        Args:
            keys: one an item.
            items: RGB images or texts.
            names: what an error message calls each item.

        Raises:
            DistilvlError: rows that are not fit to be stored, or no answer; it names the first such item.
        """
        if self._answers is None:
            rows = ask(self._teacher, self._modality, items, names)
            self._check(rows, names)
            if not self._tried:
                look_at_first(self._teacher, self._modality, items, names, rows)
                self._tried = True
            self._count(len(keys))
            return dict(zip(keys, rows, strict=True))
        return self._ask_piecewise(self._answers, keys, items, names)

    def _ask_piecewise(
        self, answers: Answers, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]
    ) -> dict[bytes, Row]:
        found: dict[bytes, Row] = {}

        def arrived(positions: Sequence[int], output: object) -> None:
            called = [names[position] for position in positions]
            rows = answered(self._teacher, output, self._modality, called)
            self._check(rows, called)
            kept = [keys[position] for position in positions]
            answers.keep(kept, rows.astype(np.float32))
            with self._lock:
                found.update(zip(kept, rows.astype(np.float32), strict=True))
                self._count(len(kept))

        assert isinstance(self._teacher, PiecewiseTeacher)
        method = "ask_images" if self._modality == "image" else "ask_texts"
        try:
            getattr(self._teacher, method)(items, arrived)
        except UnansweredError as error:
            if not (error.refused and self._skip_refused):
                others = f" and {len(error.positions) - 1} others" if len(error.positions) > 1 else ""
                raise DistilvlError(
                    f"teacher {self._teacher.name!r} gave no features for {names[error.positions[0]]!r}{others}: "
                    f"{error.reason}.",
                    error.remedy,
                ) from error
            self.refused += [keys[position] for position in error.positions]
            self._ticker.advance(len(error.positions))
        except DistilvlError:
            raise
        # Anything at all can go wrong in code that is not ours.
        except Exception as error:
            where = named(names, self._modality)
            raise DistilvlError(
                f"{who(self._teacher)} failed in {method} at {where}: {said(error)}.",
                "Mend the teacher; the same command then continues.",
            ) from error
        left_out = set(self.refused)
        for key, name in zip(keys, names, strict=True):
            if key not in found and key not in left_out:
                raise DistilvlError(
                    f"teacher {self._teacher.name!r} gave no features for {name!r}, and no reason.",
                    "A teacher that answers piece by piece answers every item or raises.",
                )
        return found

    def _check(self, rows: Row, names: Sequence[str]) -> None:
        storable_rows(rows, len(names), self._store.manifest, who(self._teacher), names)

    def _count(self, answered: int) -> None:
        self.asked += answered
        self._ticker.advance(answered)
