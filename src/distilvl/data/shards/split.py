"""From `webdataset:PLACE` to the shards that it names, and one split of them, ready to be streamed."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from distilvl.data.image_files import kept_out
from distilvl.data.left_out import LeftOut
from distilvl.data.listing import split_in_path, usual_split
from distilvl.data.remote import AnyPath, is_remote, remote_files
from distilvl.data.shards.counts import captions_of, count_records, left_out_of, no_records
from distilvl.data.shards.groups import IMAGE_KINDS, TEXT_KINDS
from distilvl.data.shards.tar import Sample, samples
from distilvl.data.specs import Spec, parse_spec
from distilvl.errors import DistilvlError, require

PACKED_SHARD = "a compressed shard, which is not read; decompress it"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Shard:
    """One archive.

    Attributes:
        path: on this machine, or an address.
        split: `train`, `val` or `test`.
    """

    path: AnyPath
    split: str


def find_shards(spec: Spec, left_out: LeftOut) -> list[Shard]:
    """The shards of `webdataset:PLACE?val=PLACE&test=PLACE&split=NAME`, in order of their paths.

    A place is a folder (all `*.tar` in it and in the folders in it), or a path in which braces (`{000..099}`,
    `{train,val}`) and the signs of the shell (`*`, `[0-9]`) stand for several. The split is the word for one in the
    shard's name, else its folder's name if that is one, else `train`; `val=` and `test=` name shards that are those
    whatever their names. With `split=` only that one is read. Places may be addresses (`s3://bucket/train-*.tar`);
    whether the shards behind them are there shows when they are counted.

    Args:
        spec: of the kind `webdataset`.
        left_out: takes the shards of a folder that are hidden, or lie in a folder of a NAS or a waste bin.

    Raises:
        DistilvlError: a place without shards, a missing shard, a name that does not end in `.tar`, an address that
            fsspec does not know.
    """
    named = {split: set(_expand(place, left_out)) for split in ("val", "test") if (place := spec.one(split))}
    every = sorted({*_expand(spec.place, left_out), *(path for paths in named.values() for path in paths)}, key=_place)
    both = named.get("val", set()) & named.get("test", set())
    if both:
        raise DistilvlError(f"the shard {min(both, key=_place)} is named for val and for test.", "Give it one split.")
    shards = [Shard(path, _split(path, named)) for path in every]
    wanted = spec.one("split")
    if wanted is None:
        return shards
    chosen = [shard for shard in shards if shard.split == usual_split(wanted)]
    if not chosen:
        have = ", ".join(sorted({shard.split for shard in shards}))
        raise DistilvlError(f"split {wanted!r} of webdataset:{spec.place} is empty.", f"Its splits are: {have}.")
    return chosen


def _place(path: AnyPath) -> tuple[str, ...]:
    return path.parts


def _split(path: AnyPath, named: dict[str, set[AnyPath]]) -> str:
    for split, paths in named.items():
        if path in paths:
            return split
    return split_in_path(Path(path.name), path.parent.name) or "train"


def _expand(place: str, left_out: LeftOut) -> list[AnyPath]:
    if is_remote(place):
        return _checked([path for name in _braces(place) for path in remote_files(name, ".tar", ("**/*",))], place)
    if "://" in place or place.startswith("pipe:"):
        raise DistilvlError(
            f"webdataset:{place} is neither a path nor a plain address.", "Copy or mount the shards; nothing is run."
        )
    folder = Path(place)
    if folder.is_dir():
        found: list[AnyPath] = []
        for path in sorted([*folder.rglob("*.tar.*"), *folder.rglob("*.tgz")]):
            if path.name.lower().endswith(_PACKED):
                left_out.add(PACKED_SHARD, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*.tar")):
            within = path.relative_to(folder)
            reason = next((reason for part in within.parts if (reason := kept_out(part))), "")
            if reason:
                left_out.add(reason, within.as_posix())
            else:
                found.append(path)
        if not found and left_out:
            raise DistilvlError(
                f"the folder {place} holds no .tar file; left out {'; '.join(left_out.lines())}.",
                "Decompress the shards.",
            )
        return _checked(found, place)
    return _checked([path for name in _braces(place) for path in _globbed(name)], place)


def _braces(place: str) -> Sequence[str]:
    if "{" not in place:
        return [place]
    try:
        return list(require("braceexpand", extra="webdataset").braceexpand(place))
    except ValueError as error:
        raise DistilvlError(f"webdataset:{place} has a brace too many or too few.", "Check it.") from error


def _globbed(name: str) -> list[AnyPath]:
    if not glob.has_magic(name):
        return [Path(name)]
    return [Path(found) for found in glob.glob(name, recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute one


def _checked(paths: list[AnyPath], place: str) -> list[AnyPath]:
    if not paths:
        raise DistilvlError(f"webdataset:{place} names no shards.", "Give a folder of .tar files, or a pattern.")
    missing = [path for path in paths if isinstance(path, Path) and not path.is_file()]
    if missing:
        count = f"{len(missing)} of {len(paths)} are missing"
        raise DistilvlError(f"there is no shard and no folder {missing[0]} ({count}).", "Check the path.")
    odd = [path for path in paths if path.suffix.lower() != ".tar"]
    if odd:
        raise DistilvlError(f"{odd[0]} is not a .tar file.", "Decompress it: images are compressed already.")
    return paths


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
        left_out: what was passed over when the records were counted.
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
    left_out = LeftOut()
    paths = tuple(shard.path for shard in find_shards(spec, left_out) if shard.split == name)
    found = count_records(paths, skip_bad=skip_bad)
    left_out.update(left_out_of(found))
    counts = tuple(count.records for count in found)
    if not sum(counts):
        raise no_records(f"split {name!r} of {source}", left_out)
    left_out.log(f"webdataset:{spec.place}/{name}")
    lanes, buffer = _number(spec, "lanes", LANES), _number(spec, "buffer", BUFFER)
    captions = sum(count.captions for count in found)
    return ShardSplit(f"webdataset:{spec.place}/{name}", paths, counts, captions, lanes, buffer, skip_bad, left_out)


def _number(spec: Spec, option: str, usual: int) -> int:
    text = spec.one(option)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise DistilvlError(f"webdataset:{spec.place}: {option} is {text!r}.", "Give a whole number from 1 on.")
    return int(text)
