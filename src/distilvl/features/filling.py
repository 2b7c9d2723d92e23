"""Blocks of a store, filled: what they lack is put to the teacher, and written as one shard each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distilvl.data.records import ImageSource
from distilvl.features.asking import Asker
from distilvl.features.blocks import Block, share_blocks
from distilvl.features.image_calls import image_calls, made_ahead
from distilvl.features.store import FeatureStore
from distilvl.progress import Ticker
from distilvl.teachers.base import Teacher

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
    teacher: Teacher, store: FeatureStore, blocks: Sequence[Block], captions: Mapping[bytes, str], ticker: Ticker
) -> Filled:
    """As `fill_images`, for blocks of captions, of which none can be bad."""
    asker = Asker(teacher, store, "text", ticker)

    def work(number: int, missing: list[bytes]) -> None:
        rows = asker.kept(missing)
        unasked = [key for key in missing if key not in rows]
        texts = [captions[key] for key in unasked]
        if texts:
            rows |= asker.ask(unasked, texts, texts)
        store.add("text", missing, np.stack([rows[key] for key in missing]), number)
        asker.settle()

    share_blocks(store, blocks, work, ticker)
    asker.settle()
    return Filled(asker.asked, {})
