"""A teacher run over blocks of a store: its embeddings are checked, and what is paid for is stored as it arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.records import ImageSource
from distilvl.errors import DistilvlError
from distilvl.extraction.work import Block, image_calls, one_block, share_blocks
from distilvl.features.shards import Modality, storable_embeddings
from distilvl.features.store import FeatureStore
from distilvl.features.upkeep import Pending
from distilvl.io.prefetch import one_ahead
from distilvl.io.progress import Silence, Ticker, progress
from distilvl.teachers.base import PiecewiseTeacher, Teacher, UnansweredError, said
from distilvl.teachers.checks import bare, checked_output, encode, look_at_first, named, who

REFUSED = "the teacher refuses it"
Embeddings = npt.NDArray[Any]


@dataclass(frozen=True)
class Extracted:
    """What was done.

    Attributes:
        count: number of items that the teacher encoded now.
        bad: keys of images that were left out, with the reason.
    """

    count: int = 0
    bad: dict[bytes, str] = field(default_factory=dict)


def fill_images(
    teacher: Teacher,
    store: FeatureStore,
    blocks: Sequence[Block],
    images: Mapping[bytes, ImageSource],
    ticker: Ticker,
    *,
    skip_bad: bool,
    encoded: Callable[[], object] = lambda: None,
) -> Extracted:
    """Store the teacher's embeddings of all images that `blocks` lack, sharing the work with other writers.

    Keeps no more than a block of embeddings and two calls of images in memory.

    Args:
        teacher: encodes them.
        store: where the embeddings go.
        blocks: of images.
        images: the source of every key that the store lacks.
        ticker: told of every image.
        skip_bad: leave out what cannot be decoded, or is refused by the teacher, instead of raising.
        encoded: called after every call that the teacher has returned from.

    Raises:
        BadImageError: an image that cannot be decoded, unless `skip_bad`.
        DistilvlError: as `Extractor.encode` and `FeatureStore.add`.
    """
    extractor = Extractor(teacher, store, "image", ticker, skip_refused=skip_bad)
    bad: dict[bytes, str] = {}

    def work(number: int, missing: list[bytes]) -> None:
        found = extractor.kept(missing)
        left = [(key, images[key]) for key in missing if key not in found]
        for call in one_ahead(image_calls(left, skip_bad=skip_bad)):
            if call.keys:
                found |= extractor.encode(call.keys, call.images, call.names)
                encoded()
            bad.update(call.bad)
            ticker.advance(len(call.bad))
        good = [key for key in missing if key in found]
        if good:
            store.add("image", good, np.stack([found[key] for key in good]), number)
        extractor.drop_stored()

    share_blocks(store, blocks, work, ticker)
    extractor.drop_stored()
    return Extracted(extractor.count, bad | dict.fromkeys(extractor.refused, REFUSED))


def fill_captions(
    teacher: Teacher,
    store: FeatureStore,
    blocks: Sequence[Block],
    captions: Mapping[bytes, str],
    ticker: Ticker,
    *,
    tried: bool = False,
) -> Extracted:
    """As `fill_images`, for blocks of captions, of which none can be bad; `tried`: some were encoded before."""
    extractor = Extractor(teacher, store, "text", ticker, tried=tried)

    def work(number: int, missing: list[bytes]) -> None:
        store.add("text", missing, extractor.captions(captions, missing), number)
        extractor.drop_stored()

    share_blocks(store, blocks, work, ticker)
    extractor.drop_stored()
    return Extracted(extractor.count)


class CaptionTrial:
    """Captions that are encoded before most images are; see `caption_trial`.

    Attributes:
        count: number of captions that the teacher encoded now.
    """

    def __init__(self, steps: Iterator[int]) -> None:
        self._steps, self.count = steps, 0

    def go_on(self) -> None:
        """The next step, if there is one: to encode, then to store."""
        self.count = next(self._steps, self.count)


@contextmanager
def caption_trial(
    teacher: Teacher, store: FeatureStore, blocks: Sequence[Block], captions: Mapping[bytes, str]
) -> Iterator[CaptionTrial]:
    """Encode one block of captions first, so that a fault of the text side is not found after all images.

    The block is encoded as it would be later, and leased, so that nothing is encoded twice and the bytes that are
    stored are the same. It is stored when an image has been encoded, too, which `go_on` is to say: of a teacher that
    fails at its first images nothing is stored. Teachers behind an API, whose embeddings are stored in any case, encode
    the first images before that.

    Raises:
        DistilvlError: as `Extractor.encode`; also by `go_on`.
    """
    paid = isinstance(teacher, PiecewiseTeacher)
    with closing(_trial_steps(teacher, store, blocks, captions, show=not paid)) as steps:
        trial = CaptionTrial(steps)
        if not paid:
            trial.go_on()
        yield trial
        for count in steps:
            trial.count = count


def _trial_steps(
    teacher: Teacher, store: FeatureStore, blocks: Sequence[Block], captions: Mapping[bytes, str], *, show: bool
) -> Generator[int, None, None]:
    with one_block(store, blocks) as found:
        if found is None:
            return
        number, missing = found
        # Two bars at a time would be one too many for a terminal.
        with progress("teacher: first captions", len(missing)) if show else nullcontext(Silence()) as ticker:
            extractor = Extractor(teacher, store, "text", ticker)
            embeddings = extractor.captions(captions, missing)
        yield extractor.count
        store.add("text", missing, embeddings, number)
        extractor.drop_stored()


class Extractor:
    """Runs `teacher` over items of one modality.

    Args:
        teacher: any; of a `PiecewiseTeacher` all that arrives is stored until `drop_stored`.
        store: where the embeddings will go; gives the dimension.
        modality: of all items.
        ticker: told of every item.
        skip_refused: leave out items that the teacher does not take, instead of raising.
        tried: its first embeddings have been looked at (`look_at_first`).

    Attributes:
        refused: keys of the items left out.
        count: number of items encoded now; those of an interrupted run do not count.
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
        self._pending = Pending(store, modality) if isinstance(teacher, PiecewiseTeacher) else None
        self._lock = threading.Lock()
        self.refused: list[bytes] = []
        self.count = 0

    def kept(self, keys: Sequence[bytes]) -> dict[bytes, Embeddings]:
        """Those of `keys` that an interrupted run has paid for, with their embeddings."""
        if self._pending is None:
            return {}
        wanted = set(keys)
        found = {key: embedding for key, embedding in self._pending.load().items() if key in wanted}
        self._ticker.advance(len(found))
        return found

    def drop_stored(self) -> None:
        """Remove what was stored of items that are in shards now."""
        if self._pending is not None:
            self._pending.drop_stored()

    def captions(self, captions: Mapping[bytes, str], keys: Sequence[bytes]) -> Embeddings:
        """Embeddings of the captions with these keys, shape (n, D); stored ones are not encoded again."""
        found = self.kept(keys)
        left = [key for key in keys if key not in found]
        texts = [captions[key] for key in left]
        if texts:
            found |= self.encode(left, texts, texts)
        return np.stack([found[key] for key in keys])

    def encode(self, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]) -> dict[bytes, Embeddings]:
        """The teacher's embeddings of `items`: key -> embedding, shape (D,), as the teacher returned it.

        Args:
            keys: one an item.
            items: RGB images or texts.
            names: what an error message calls each item.

        Raises:
            DistilvlError: embeddings that are not fit to be stored, or none; it names the first such item.
        """
        if self._pending is not None:
            return self._encode_piecewise(self._pending, keys, items, names)
        embeddings = encode(self._teacher, self._modality, items, names)
        self._check(embeddings, names)
        if not self._tried:
            look_at_first(self._teacher, self._modality, items, names, embeddings)
            self._tried = True
        self._advance(len(keys))
        return dict(zip(keys, embeddings, strict=True))

    def _encode_piecewise(
        self, pending: Pending, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]
    ) -> dict[bytes, Embeddings]:
        found: dict[bytes, Embeddings] = {}

        def arrived(positions: Sequence[int], output: object) -> None:
            called = [names[position] for position in positions]
            embeddings = checked_output(self._teacher, output, self._modality, called)
            self._check(embeddings, called)
            these = [keys[position] for position in positions]
            pending.keep(these, embeddings.astype(np.float32))
            with self._lock:
                found.update(zip(these, embeddings.astype(np.float32), strict=True))
                self._advance(len(these))

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
                    "A teacher that delivers piece by piece delivers every item or raises.",
                )
        return found

    def _check(self, embeddings: Embeddings, names: Sequence[str]) -> None:
        storable_embeddings(embeddings, len(names), self._store.manifest, who(self._teacher), names)

    def _advance(self, count: int) -> None:
        self.count += count
        self._ticker.advance(count)
