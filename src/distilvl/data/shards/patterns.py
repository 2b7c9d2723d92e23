"""From `webdataset:PLACE` to the shards that it names, each with its split."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distilvl.data.image_files import kept_out
from distilvl.data.left_out import LeftOut
from distilvl.data.listing import split_in_path, usual_split
from distilvl.data.optional import require
from distilvl.data.remote import AnyPath, is_remote, remote_files
from distilvl.data.specs import Spec
from distilvl.errors import DistilvlError

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
        return list(require("braceexpand", "webdataset").braceexpand(place))
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
