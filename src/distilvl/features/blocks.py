"""The work on a store, cut into blocks that any number of writers share."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distilvl.features.claims import Claims
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.progress import Ticker

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
    claims = Claims(store.path)
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
    claims = Claims(store.path)
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
