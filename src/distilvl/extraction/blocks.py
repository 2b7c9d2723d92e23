"""The work on a store, cut into blocks that any number of writers share;
what a block lacks is extracted into one shard."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.records import ImageSource
from distilvl.extraction.encode import Asker, image_calls
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.io.leases import Leases
from distilvl.io.prefetch import one_ahead
from distilvl.io.progress import Silence, Ticker, progress
from distilvl.teachers.base import PiecewiseTeacher, Teacher

# How often a writer that has nothing left to do looks whether the others are done.
PAUSE_S = 0.5
_logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class Block:
    """Items that become one shard.

    Attributes:
        modality: `image` or `text`.
        number: position in the list of blocks, and the shard's number.
        keys: all items of it, stored or not.
    """

    modality: Modality
    number: int
    keys: tuple[bytes, ...]

    def missing(self, store: FeatureStore) -> list[bytes]:
        """Its keys that `store` lacks, in order."""
        return [self.keys[i] for i in store.missing(self.modality, self.keys)]

    @property
    def claim_name(self) -> str:
        """The same for every writer that has the same items to do, and for no other block."""
        return f"{self.modality}-{self.number:05d}-{hashlib.sha256(b''.join(self.keys)).hexdigest()[:16]}"


def cut_blocks(modality: Modality, keys: Sequence[bytes], size: int) -> list[Block]:
    """All `keys` in blocks of `size`, numbered from 0.

    Give the whole list, stored or not, in an order that all writers share: then writers that start at different times,
    or after a kill, cut the same blocks.
    """
    starts = range(0, len(keys), size)
    return [Block(modality, number, tuple(keys[start : start + size])) for number, start in enumerate(starts)]


@contextmanager
def one_block(store: FeatureStore, blocks: Sequence[Block]) -> Iterator[tuple[int, list[bytes]] | None]:
    """Number and missing keys of the first of `blocks` that `store` lacks and nobody works on, claimed until the end.

    None when there is none.
    """
    claims = Leases(store.path)
    for block in blocks:
        if not block.missing(store) or (claim := claims.take(block.claim_name)) is None:
            continue
        with claim:
            # Its last owner may have finished it just before we took it.
            store.refresh()
            if missing := block.missing(store):
                yield block.number, missing
                return
    yield None


def share_blocks(
    store: FeatureStore,
    blocks: Sequence[Block],
    work: Callable[[int, list[bytes]], None],
    ticker: Ticker,
) -> None:
    """Call `work(number, missing keys)` for every block that is not stored, unless another writer does it.

    A block in other hands is waited for, and taken over when its writer dies.

    Args:
        store: refreshed on the way; at the end it holds all that any writer did.
        blocks: some of those that `cut_blocks` made.
        work: stores what it is given, and tells `ticker`.
        ticker: told here of what others did.
    """
    claims = Leases(store.path)
    todo = {block: len(missing) for block in blocks if (missing := block.missing(store))}
    waited = False
    while todo:
        busy: dict[Block, int] = {}
        for block, lacked in todo.items():
            claim = claims.take(block.claim_name)
            if claim is None:
                busy[block] = lacked
                continue
            with claim:
                # Its last owner may have finished it just before we took it.
                store.refresh()
                missing = block.missing(store)
                ticker.advance(lacked - len(missing))
                if missing:
                    work(block.number, missing)
        if len(busy) == len(todo):
            if not waited:
                _logger.info("waiting for %d blocks that other runs work on", len(busy))
                waited = True
            time.sleep(PAUSE_S)
        todo = busy


REFUSED = "the teacher refuses it"


@dataclass(frozen=True)
class Filled:
    """What was done.

    Attributes:
        asked: number of items the teacher answered now.
        bad: keys of images that were left out, with the reason.
    """

    asked: int
    bad: dict[bytes, str]


def fill_images(
    teacher: Teacher,
    store: FeatureStore,
    blocks: Sequence[Block],
    images: Mapping[bytes, ImageSource],
    ticker: Ticker,
    *,
    skip_bad: bool,
    answered: Callable[[], object] = lambda: None,
) -> Filled:
    """Store the teacher's rows for all images that `blocks` lack, sharing the work with other writers.

    Keeps no more than a block of rows and two calls of images in memory.

    Args:
        teacher: whom to ask.
        store: where its rows go.
        blocks: of images.
        images: the source of every key that the store lacks.
        ticker: told of every image.
        skip_bad: leave out what cannot be decoded, or is refused by the teacher, instead of raising.
        answered: called after every call that the teacher has answered.

    Raises:
        BadImageError: an image that cannot be decoded, unless `skip_bad`.
        DistilvlError: as `Asker.ask` and `FeatureStore.add`.
    """
    asker = Asker(teacher, store, "image", ticker, skip_refused=skip_bad)
    bad: dict[bytes, str] = {}

    def work(number: int, missing: list[bytes]) -> None:
        rows = asker.kept(missing)
        unasked = [(key, images[key]) for key in missing if key not in rows]
        for call in one_ahead(image_calls(unasked, skip_bad=skip_bad)):
            if call.keys:
                rows |= asker.ask(call.keys, call.images, call.names)
                answered()
            bad.update(call.bad)
            ticker.advance(len(call.bad))
        good = [key for key in missing if key in rows]
        if good:
            store.add("image", good, np.stack([rows[key] for key in good]), number)
        asker.settle()

    share_blocks(store, blocks, work, ticker)
    asker.settle()
    return Filled(asker.asked, bad | dict.fromkeys(asker.refused, REFUSED))


def fill_captions(
    teacher: Teacher,
    store: FeatureStore,
    blocks: Sequence[Block],
    captions: Mapping[bytes, str],
    ticker: Ticker,
    *,
    tried: bool = False,
) -> Filled:
    """As `fill_images`, for blocks of captions, of which none can be bad; `tried` says that some were asked before."""
    asker = Asker(teacher, store, "text", ticker, tried=tried)

    def work(number: int, missing: list[bytes]) -> None:
        store.add("text", missing, _caption_rows(asker, captions, missing), number)
        asker.settle()

    share_blocks(store, blocks, work, ticker)
    asker.settle()
    return Filled(asker.asked, {})


class CaptionTrial:
    """Captions that are asked about before most images are; see `caption_trial`.

    Attributes:
        asked: number of captions that the teacher answered now.
    """

    def __init__(self, steps: Iterator[int]) -> None:
        self._steps, self.asked = steps, 0

    def go_on(self) -> None:
        """The next step, if there is one: to ask, then to store."""
        self.asked = next(self._steps, self.asked)


@contextmanager
def caption_trial(
    teacher: Teacher, store: FeatureStore, blocks: Sequence[Block], captions: Mapping[bytes, str]
) -> Iterator[CaptionTrial]:
    """Ask about one block of captions first, so that a fault of the text side is not found after all images.

    The block is asked about as it would be later, and claimed, so that nothing is asked twice and the bytes that are
    stored are the same. Its rows are stored when an image has been answered, too, which `go_on` is to say: of a
    teacher that fails at its first images nothing is stored. Teachers behind an API, whose answers are kept in any
    case, are asked about the first images before that.

    Raises:
        DistilvlError: as `Asker.ask`; also by `go_on`.
    """
    paid = isinstance(teacher, PiecewiseTeacher)
    with closing(_trial_steps(teacher, store, blocks, captions, show=not paid)) as steps:
        trial = CaptionTrial(steps)
        if not paid:
            trial.go_on()
        yield trial
        for asked in steps:
            trial.asked = asked


def _trial_steps(
    teacher: Teacher, store: FeatureStore, blocks: Sequence[Block], captions: Mapping[bytes, str], *, show: bool
) -> Generator[int, None, None]:
    with one_block(store, blocks) as found:
        if found is None:
            return
        number, missing = found
        # Two bars at a time would be one too many for a terminal.
        with progress("teacher: first captions", len(missing)) if show else nullcontext(Silence()) as ticker:
            asker = Asker(teacher, store, "text", ticker)
            rows = _caption_rows(asker, captions, missing)
        yield asker.asked
        store.add("text", missing, rows, number)
        asker.settle()


def _caption_rows(asker: Asker, captions: Mapping[bytes, str], missing: Sequence[bytes]) -> npt.NDArray[Any]:
    rows = asker.kept(missing)
    unasked = [key for key in missing if key not in rows]
    texts = [captions[key] for key in unasked]
    if texts:
        rows |= asker.ask(unasked, texts, texts)
    return np.stack([rows[key] for key in missing])
