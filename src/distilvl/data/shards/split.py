"""One split of a WebDataset, ready to be streamed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from distilvl.data.left_out import LeftOut
from distilvl.data.remote import AnyPath
from distilvl.data.shards.captions import captions_of
from distilvl.data.shards.counts import count_records
from distilvl.data.shards.patterns import find_shards
from distilvl.data.shards.tar import IMAGE_KINDS, TEXT_KINDS, Sample, samples
from distilvl.data.specs import Spec, parse_spec
from distilvl.errors import DistilvlError

LANES = 8
BUFFER = 1000
ALL_KINDS = IMAGE_KINDS | TEXT_KINDS


@dataclass(frozen=True)
class ShardSplit:
    """Shards and what was counted in them.

    Attributes:
        name: how messages call it.
        paths: of the shards, sorted.
        counts: records of each.
        captions_total: of all records.
        lanes: in how many places of an epoch records are read at once (`EpochOrder`).
        buffer: records that each lane holds to shuffle them.
        skip_bad: leave bad records out and count them, instead of stopping.
        left_out: what was passed over when they were counted.
    """

    name: str
    paths: tuple[AnyPath, ...]
    counts: tuple[int, ...]
    captions_total: int = 0
    lanes: int = LANES
    buffer: int = BUFFER
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
        """Records `start` to `stop` of one shard, with their contents.

        Raises:
            DistilvlError: the shard does not hold them any more.
        """
        path, found = self.paths[shard], 0
        for sample in islice(samples(path, start=start, read=ALL_KINDS), stop - start):
            yield sample
            found += 1
        if found < stop - start:
            raise DistilvlError(
                f"{path} had {self.counts[shard]} records when they were counted, now {start + found}.",
                "Run the command again when the shards are at rest.",
            )


@dataclass(frozen=True)
class ShardCaptions(Collection[str]):
    """The captions of a split, read from its shards each time that they are iterated over."""

    split: ShardSplit

    def __iter__(self) -> Iterator[str]:
        for path, count in zip(self.split.paths, self.split.counts, strict=True):
            for sample in islice(samples(path, read=TEXT_KINDS), count):
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
    """The split `name` of `webdataset:...`, its records counted.

    Raises:
        DistilvlError: no such shards, none of that split, no records, an option that is not a number; whatever
            `count_records` finds.
    """
    spec = parse_spec(one_split(source, name))
    assert spec is not None
    paths = tuple(shard.path for shard in find_shards(spec) if shard.split == name)
    found = count_records(paths, skip_bad=skip_bad)
    counts = tuple(count.records for count in found)
    if not sum(counts):
        raise DistilvlError(f"split {name!r} of {source} has no records.", "Give shards with images and captions.")
    lanes, buffer = _number(spec, "lanes", LANES), _number(spec, "buffer", BUFFER)
    captions = sum(count.captions for count in found)
    return ShardSplit(f"webdataset:{spec.place}/{name}", paths, counts, captions, lanes, buffer, skip_bad)


def _number(spec: Spec, option: str, usual: int) -> int:
    text = spec.one(option)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise DistilvlError(f"webdataset:{spec.place}: {option} is {text!r}.", "Give a whole number from 1 on.")
    return int(text)
