"""A split of shards, streamed: which record of which shard is in which batch, a pure function of seed and epoch.

Shards are permuted and laid end to end. That row of records is cut into one part a node, and each part into `lanes`,
stretches that are read side by side: batch b comes from lane b mod lanes, so that any number of worker processes that
divides the number of lanes makes the same batches. A lane is shuffled in windows of `buffer` records: while one is
handed out, the next is read, record for record. Where a batch begins follows from the numbers of records alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice

import numpy as np
import numpy.typing as npt

from distilvl.data.left_out import LeftOut
from distilvl.data.remote import AnyPath
from distilvl.data.shards.counts import captions_of, count_records, no_records
from distilvl.data.shards.pairs import find_shards
from distilvl.data.shards.tar import IMAGE_KINDS, TEXT_KINDS, Sample, samples
from distilvl.data.specs import Spec, parse_spec
from distilvl.errors import DistilvlError

LANES, BUFFER = 8, 1000
_WINDOWS = 1  # the part of a window's seed that keeps it apart from the permutation of shards


@dataclass(frozen=True)
class ShardSplit:
    """Shards, sorted, and what was counted in them."""

    name: str
    paths: tuple[AnyPath, ...]
    counts: tuple[int, ...]  # records of each
    captions_total: int = 0
    lanes: int = LANES  # in how many places of an epoch records are read at once (`EpochOrder`)
    buffer: int = BUFFER  # records that each lane holds to shuffle them
    skip_bad: bool = False
    left_out: LeftOut = field(default_factory=LeftOut, repr=False, compare=False)

    def __len__(self) -> int:
        """Records of all shards."""
        return sum(self.counts)

    @property
    def captions(self) -> ShardCaptions:
        """All captions."""
        return ShardCaptions(self)

    def read(self, shard: int, start: int, stop: int) -> Iterator[Sample]:
        """Records `start` to `stop` of one shard, with their contents; `DistilvlError` if they are there no more."""
        path, found = self.paths[shard], 0
        for sample in islice(samples(path, start=start, read=IMAGE_KINDS | TEXT_KINDS), stop - start):
            yield sample
            found += 1
        if found < stop - start:
            problem = f"{path} had {self.counts[shard]} records when they were counted, now {start + found}."
            raise DistilvlError(problem, "Run the command again when the shards are at rest.")


@dataclass(frozen=True)
class ShardCaptions(Collection[str]):
    """The captions of a split, read from its shards each time that they are iterated over."""

    split: ShardSplit

    def __iter__(self) -> Iterator[str]:
        for path, records in zip(self.split.paths, self.split.counts, strict=True):
            for sample in islice(samples(path, read=TEXT_KINDS), records):
                with suppress(DistilvlError):  # the count has said so
                    yield from captions_of(sample)

    def __len__(self) -> int:
        return self.split.captions_total

    def __contains__(self, caption: object) -> bool:
        return any(caption == one for one in self)


def is_webdataset(source: str) -> bool:
    """Whether `source` is `webdataset:...`; reads nothing."""
    spec = parse_spec(source)
    return spec is not None and spec.kind == "webdataset"


def one_split(source: str, name: str) -> str:
    """`source`, a WebDataset, with its other splits left aside; another kind of data as it is."""
    if not is_webdataset(source) or "split=" in source.partition("?")[2]:
        return source
    return f"{source}{'&' if '?' in source else '?'}split={name}"


def open_split(source: str, name: str, *, skip_bad: bool = False) -> ShardSplit:
    """The split `name` of `webdataset:...`; `DistilvlError` for no records, a bad option, as `count_records`."""
    spec = parse_spec(one_split(source, name))
    assert spec is not None
    left_out, known_as = LeftOut(), f"webdataset:{spec.place}/{name}"
    paths = tuple(path for path, split in find_shards(spec, left_out) if split == name)
    found = count_records(paths, skip_bad=skip_bad)
    for one in found:
        left_out.update(one.left_out)
    counts = tuple(one.records for one in found)
    if not sum(counts):
        raise no_records(f"split {name!r} of {source}", left_out)
    left_out.log(known_as)
    lanes, buffer = _number(spec, "lanes", LANES), _number(spec, "buffer", BUFFER)
    captions = sum(one.captions for one in found)
    return ShardSplit(known_as, paths, counts, captions, lanes, buffer, skip_bad, left_out)


def _number(spec: Spec, option: str, usual: int) -> int:
    text = spec.one(option) or str(usual)
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise DistilvlError(f"webdataset:{spec.place}: {option} is {text!r}.", "Give a whole number from 1 on.")
    return int(text)


class EpochOrder:
    """Batches of samples of a split, each record once an epoch; process `node` gets its share of every batch.

    An epoch has as few batches as hold all records, at most `batch_size` each over all nodes (more only where it is
    below 4 a node), and no two of them differ by more than one record: no short last batch, and none is dropped.
    `DistilvlError` for fewer records than a batch, or a batch of less than two a node.
    """

    def __init__(self, split: ShardSplit, batch_size: int, seed: int, *, node: int = 0, nodes: int = 1) -> None:
        if len(split) < batch_size or batch_size < 2 * nodes:
            few = f"{len(split)} records of {split.name} do not make a batch of {batch_size} over {nodes} processes."
            raise DistilvlError(few, "Use another training.batch_size or more records.")
        self._split, self._seed, self._node = split, seed, node
        self._counts = np.asarray(split.counts, dtype=np.int64)
        # Two records a node at least: of 3 records, batches of 2 and 1 would leave a loss without a negative.
        self.batches = min(-(-len(split) // batch_size), len(split) // (2 * nodes))
        base, self._larger = divmod(len(split), self.batches)
        shares = [[rows * (k + 1) // nodes - rows * k // nodes for rows in (base + 1, base)] for k in range(nodes)]
        self._sizes = shares[node]
        smaller = self.batches - self._larger
        self._start = sum(self._larger * large + smaller * small for large, small in shares[:node])

    def rows(self, batch: int) -> int:
        """Records of this node in that batch."""
        return self._sizes[0] if batch < self._larger else self._sizes[1]

    def epoch(self, number: int, batches: range) -> Iterator[list[Sample]]:
        """The samples of these ascending batches, whose step divides, or is divided by, the number of lanes."""
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
        start = self._start + sum(self._before(k, self._turns(k, self.batches)) for k in range(lane))
        stop = start + self._before(lane, self._turns(lane, self.batches))
        buffer = self._split.buffer
        window, done = divmod(self._before(lane, turn), buffer)
        records = self._read(shards, start + window * buffer, stop)
        seeds = ((self._seed, epoch, _WINDOWS, self._node, lane, number) for number in count(window))
        return islice(_shuffled(records, buffer, seeds), done, None)

    def _turns(self, lane: int, below: int) -> int:
        """How many of the batches below a number are the lane's."""
        return max(0, -(-(below - lane) // self._split.lanes))

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
