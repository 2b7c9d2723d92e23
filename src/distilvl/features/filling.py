"""Blocks of a store, filled: what they lack is put to the teacher, and written as one shard each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.data.records import ImageSource
from distilvl.features.asking import Asker
from distilvl.features.blocks import Block, one_block, share_blocks
from distilvl.features.image_calls import image_calls, made_ahead
from distilvl.features.store import FeatureStore
from distilvl.progress import Silence, Ticker, progress
from distilvl.teachers.base import Teacher
from distilvl.teachers.piecewise import PiecewiseTeacher

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
        for call in made_ahead(image_calls(unasked, skip_bad=skip_bad)):
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
