"""A teacher run over blocks of a store: its embeddings are checked, and what is paid for is stored as it arrives."""

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
    """What was done."""

    count: int = 0  # number of items that the teacher encoded now
    bad: dict[bytes, str] = field(default_factory=dict)  # keys of images that were left out, with the reason


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

    Keeps no more than a block of embeddings and two calls of images in memory. `images` has the source of every key
    that the store lacks; `encoded` is called whenever the teacher has returned from a call. `BadImageError` for an
    image that cannot be decoded, or that the teacher refuses, unless `skip_bad`. `DistilvlError` as `Extractor.encode`
    and `FeatureStore.add`.
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
    """Captions that are encoded before most images are, `count` of them until now; see `caption_trial`."""

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

    The block is encoded as it would be later, and leased, so the same bytes are stored. It is stored when `go_on` says
    that an image has been encoded, too: of a teacher that fails at its first images nothing is stored. Teachers behind
    an API, whose embeddings are stored in any case, encode the first images before that. Raises as `Extractor.encode`.
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


@dataclass
class Extractor:
    """Runs `teacher` over items of one modality; what arrives of a `PiecewiseTeacher` is kept until `drop_stored`."""

    teacher: Teacher
    store: FeatureStore
    modality: Modality
    ticker: Ticker
    skip_refused: bool = False  # leave out items that the teacher does not take, instead of raising
    tried: bool = False  # its first embeddings have been looked at (`look_at_first`)
    refused: list[bytes] = field(default_factory=list)  # keys of the items left out
    count: int = 0  # items encoded now; those of an interrupted run do not count

    def __post_init__(self) -> None:
        self._pending = Pending(self.store, self.modality) if isinstance(self.teacher, PiecewiseTeacher) else None
        self._lock = threading.Lock()
        self.teacher = bare(self.teacher)

    def kept(self, keys: Sequence[bytes]) -> dict[bytes, Embeddings]:
        """Those of `keys` that an interrupted run has paid for, with their embeddings."""
        if self._pending is None:
            return {}
        known = self._pending.load()
        found = {key: known[key] for key in dict.fromkeys(keys) if key in known}
        self.ticker.advance(len(found))
        return found

    def drop_stored(self) -> None:
        """Remove what was stored of items that are in shards now."""
        if self._pending is not None:
            self._pending.drop_stored()

    def captions(self, captions: Mapping[bytes, str], keys: Sequence[bytes]) -> Embeddings:
        """Embeddings of the captions with these keys, shape (n, D); stored ones are not encoded again."""
        found = self.kept(keys)
        left = {key: captions[key] for key in keys if key not in found}
        if texts := list(left.values()):
            found |= self.encode(list(left), texts, texts)
        return np.stack([found[key] for key in keys])

    def encode(self, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]) -> dict[bytes, Embeddings]:
        """The teacher's embeddings of RGB images or texts: key -> embedding, shape (D,), as the teacher returned it.

        `DistilvlError` for embeddings that are not fit to be stored, or none; it names the first such item.
        """
        if self._pending is not None:
            return self._encode_piecewise(self._pending, keys, items, names)
        embeddings = encode(self.teacher, self.modality, items, names)
        self._check(embeddings, names)
        if not self.tried:
            look_at_first(self.teacher, self.modality, items, names, embeddings)
            self.tried = True
        self._advance(len(keys))
        return dict(zip(keys, embeddings, strict=True))

    def _encode_piecewise(
        self, pending: Pending, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]
    ) -> dict[bytes, Embeddings]:
        found: dict[bytes, Embeddings] = {}

        def arrived(positions: Sequence[int], output: object) -> None:
            called = [names[position] for position in positions]
            embeddings = checked_output(self.teacher, output, self.modality, called)
            self._check(embeddings, called)
            these, wide = [keys[position] for position in positions], embeddings.astype(np.float32)
            pending.keep(these, wide)
            with self._lock:
                found.update(zip(these, wide, strict=True))
                self._advance(len(these))

        gave_none = f"teacher {self.teacher.name!r} gave no features for"
        method = "deliver_images" if self.modality == "image" else "deliver_texts"
        try:
            getattr(self.teacher, method)(items, arrived)
        except UnansweredError as error:
            if not (error.refused and self.skip_refused):
                others = f" and {len(error.positions) - 1} others" if len(error.positions) > 1 else ""
                first = f"{gave_none} {names[error.positions[0]]!r}{others}"
                raise DistilvlError(f"{first}: {error.reason}.", error.remedy) from error
            self.refused += [keys[position] for position in error.positions]
            self.ticker.advance(len(error.positions))
        except DistilvlError:
            raise
        # Anything at all can go wrong in code that is not ours.
        except Exception as error:
            problem = f"{who(self.teacher)} failed in {method} at {named(names, self.modality)}: {said(error)}."
            raise DistilvlError(problem, "Mend the teacher; the same command then continues.") from error
        told = {*found, *self.refused}
        for key, name in zip(keys, names, strict=True):
            if key not in told:
                remedy = "A teacher that delivers piece by piece delivers every item or raises."
                raise DistilvlError(f"{gave_none} {name!r}, and no reason.", remedy)
        return found

    def _check(self, embeddings: Embeddings, names: Sequence[str]) -> None:
        storable_embeddings(embeddings, len(names), self.store.manifest, who(self.teacher), names)

    def _advance(self, count: int) -> None:
        self.count += count
        self.ticker.advance(count)
