"""The order of an epoch: which record of which shard is in which batch, a pure function of seed and epoch.

Shards are permuted and laid end to end. That row of records is cut into one part a node, and each part into `lanes`,
stretches that are read side by side: batch b comes from lane b mod lanes. A lane is shuffled in windows of `buffer`
records: while one is handed out in a random order, the next is read, record for record, so that a lane never holds
more than `buffer`. Where any batch begins follows from the numbers of records alone. So a stopped run goes on at the
next record after reading at most one window of each lane again, and any number of worker processes that divides the
number of lanes makes the same batches: each takes whole lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from distilvl.data.shards.split import ShardSplit
from distilvl.data.shards.tar import Sample
from distilvl.errors import DistilvlError

_WINDOWS = 1  # the part of a window's seed that keeps it apart from the permutation of shards


class EpochOrder:
    """Batches of samples of a split, each record once an epoch.

    An epoch has as few batches as hold all records, at most `batch_size` each (more only where it is below 4 a node),
    and no two of them differ by more than one record: there is no short last batch, and none is dropped. Each node
    gets its share of every batch.

    Args:
        split: shards and their counts.
        batch_size: records of a batch, over all nodes.
        seed: of the run.
        node: which of `nodes` this is, from 0.
        nodes: how many processes share every batch.

    Raises:
        DistilvlError: fewer records than a batch, or a batch with less than a record a node.
    """

    def __init__(self, split: ShardSplit, batch_size: int, seed: int, *, node: int = 0, nodes: int = 1) -> None:
        if len(split) < batch_size or batch_size < 2 * nodes:
            raise DistilvlError(
                f"{len(split)} records of {split.name} do not make a batch of {batch_size} over {nodes} processes.",
                "Use another training.batch_size or more records.",
            )
        self._split, self._seed, self._node = split, seed, node
        self._counts = np.asarray(split.counts, dtype=np.int64)
        # Two records a node at least: of 3 records, batches of 2 and 1 would leave a loss without a negative.
        self.batches = min(-(-len(split) // batch_size), len(split) // (2 * nodes))
        base, self._larger = divmod(len(split), self.batches)
        shares = [(_share(base + 1, k, nodes), _share(base, k, nodes)) for k in range(nodes)]
        self._sizes = shares[node]
        smaller = self.batches - self._larger
        self._start = sum(self._larger * large + smaller * small for large, small in shares[:node])

    def rows(self, batch: int) -> int:
        """Records of this node in that batch."""
        return self._sizes[0] if batch < self._larger else self._sizes[1]

    def epoch(self, number: int, batches: range) -> Iterator[list[Sample]]:
        """The samples of these batches of epoch `number`.

        Args:
            number: of the epoch, from 0.
            batches: ascending; its step divides, or is divided by, the number of lanes.
        """
        lanes = self._split.lanes
        shards = np.random.default_rng((self._seed, number)).permutation(len(self._counts))
        open_lanes: dict[int, Iterator[Sample]] = {}
        for batch in batches:
            lane, turn = batch % lanes, batch // lanes
            if lane not in open_lanes:
                open_lanes[lane] = self._lane(number, shards, lane, turn)
            yield list(islice(open_lanes[lane], self.rows(batch)))

    def _lane(self, epoch: int, shards: npt.NDArray[np.int64], lane: int, turn: int) -> Iterator[Sample]:
        """Samples of a lane from its batch number `turn` on, shuffled."""
        start = self._start + sum(self._before(k, self._turns(k)) for k in range(lane))
        stop = start + self._before(lane, self._turns(lane))
        buffer = self._split.buffer
        window, done = divmod(self._before(lane, turn), buffer)
        records = self._read(shards, start + window * buffer, stop)
        seeds = ((self._seed, epoch, _WINDOWS, self._node, lane, number) for number in count(window))
        return islice(_shuffled(records, buffer, seeds), done, None)

    def _turns(self, lane: int, below: int | None = None) -> int:
        """How many batches, or of those below a number, are the lane's."""
        batches = self.batches if below is None else below
        return max(0, -(-(batches - lane) // self._split.lanes))

    def _before(self, lane: int, turn: int) -> int:
        """Records of a lane's batches before number `turn`; the larger batches come first."""
        large = min(turn, self._turns(lane, self._larger))
        return large * self._sizes[0] + (turn - large) * self._sizes[1]

    def _read(self, shards: npt.NDArray[np.int64], start: int, stop: int) -> Iterator[Sample]:
        """Records from place `start` to `stop` of the shards laid end to end."""
        ends = np.cumsum(self._counts[shards])
        place = int(np.searchsorted(ends, start, side="right"))
        while start < stop:
            shard, end = int(shards[place]), int(ends[place])
            first, last = end - int(self._counts[shard]), min(stop, end)
            yield from self._split.read(shard, start - first, last - first)
            start, place = last, place + 1


def _share(rows: int, node: int, nodes: int) -> int:
    return rows * (node + 1) // nodes - rows * node // nodes


def _shuffled(records: Iterator[Sample], buffer: int, seeds: Iterator[Sequence[int]]) -> Iterator[Sample]:
    """`records` in random order within windows of `buffer`; of each that is handed out, one of the next is read."""
    held: list[Sample | None] = list(islice(records, buffer))
    while held:
        following: list[Sample | None] = []
        for place in np.random.default_rng(next(seeds)).permutation(len(held)):
            following.extend(islice(records, 1))
            sample, held[place] = held[place], None
            assert sample is not None
            yield sample
        held = following
