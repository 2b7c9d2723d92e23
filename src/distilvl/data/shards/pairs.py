"""Which shards `webdataset:PLACE` names, and their records as a dataset for all but training (`order`)."""

import glob
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from pathlib import Path, PurePosixPath

from distilvl.data.folders import kept_out
from distilvl.data.left_out import Faults, LeftOut
from distilvl.data.listing import dataset_of, depth_in_common, split_in_path, usual_split
from distilvl.data.records import PairDataset, Record
from distilvl.data.remote import AnyPath, RemotePath, RemoteReadError, is_remote, remote_files
from distilvl.data.shards.counts import captions_of, count_records, no_records
from distilvl.data.shards.tar import TEXT_KINDS, samples
from distilvl.data.specs import Spec
from distilvl.errors import BadImageError, DistilvlError, require
from distilvl.pictures import BAD_IMAGE_REMEDY

PACKED_SHARD = "a compressed shard, which is not read; decompress it"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a shard: the offset of its first byte, its bytes, and its name there."""

    path: AnyPath
    offset: int
    size: int
    member: str

    @property
    def name(self) -> str:
        """Shard and member."""
        return f"{self.path}: {self.member}"

    def read(self) -> bytes:
        """The image's bytes; `BadImageError` when the shard is gone or has become shorter."""
        try:
            if isinstance(self.path, RemotePath):
                data = self.path.read_range(self.offset, self.size)
            else:
                with self.path.open("rb") as file:
                    file.seek(self.offset)
                    data = file.read(self.size)
        except RemoteReadError as error:
            raise RemoteReadError(f"{self.member}: {error}") from error
        except OSError as error:
            raise BadImageError(f"cannot read {self.name}: {error.strerror}.", BAD_IMAGE_REMEDY) from error
        if len(data) < self.size:
            raise BadImageError(f"{self.name} is cut off.", BAD_IMAGE_REMEDY)
        return data


def read_webdataset(spec: Spec, *, skip_bad: bool = False) -> PairDataset:
    """All records of the shards that `spec` names (see `find_shards`), in their order.

    `image_id` is shard and key, such as `train-000/0017`. Refused files, incomplete and bad records, second ones of a
    name, and damage are a `DistilvlError`, or left out and counted with `skip_bad`.
    """
    faults = Faults(f"webdataset:{spec.place}", skip_bad=skip_bad)
    shards = find_shards(spec, faults.left_out)
    counts = count_records([path for path, _ in shards], skip_bad=skip_bad)
    depth = depth_in_common(path.parent.parts for path, _ in shards)
    records: list[Record] = []
    for (path, split), count in zip(shards, counts, strict=True):
        faults.left_out.update(count.left_out)
        label = PurePosixPath(*path.parts[depth:]).with_suffix("").as_posix()
        for sample in islice(samples(path, read=TEXT_KINDS), count.records):
            with suppress(DistilvlError):  # the count has said so
                image = TarImage(path, sample.image.offset, sample.image.size, sample.image.name)
                records.append(Record(f"{label}/{sample.key}", image, captions_of(sample), split))
    if not records:
        raise no_records(faults.source, faults.left_out)
    return dataset_of(faults.source, records, faults)


def find_shards(spec: Spec, left_out: LeftOut) -> list[tuple[AnyPath, str]]:
    """The shards of `webdataset:PLACE?val=PLACE&test=PLACE&split=NAME` with their splits, in order of their paths.

    A place is a folder (all `*.tar` in it and in the folders in it), or a path in which braces (`{000..099}`,
    `{train,val}`) and the signs of the shell (`*`, `[0-9]`) stand for several; or such an address. The split is the
    word for one in the shard's name, else its folder's name if that is one, else `train`; `val=` and `test=` name
    shards that are those whatever their names. With `split=` only that one is read. `left_out` takes the shards of a
    folder that are hidden, or lie in a folder of a NAS or a waste bin. `DistilvlError` for a place without shards, a
    missing shard, a name that does not end in `.tar`, an address that fsspec does not know.
    """
    parts = attrgetter("parts")
    val, test = (set(_expand(place, left_out) if (place := spec.one(name)) else ()) for name in ("val", "test"))
    every = sorted({*_expand(spec.place, left_out), *val, *test}, key=parts)
    if both := sorted(val & test, key=parts):
        raise DistilvlError(f"the shard {both[0]} is named for val and for test.", "Give it one split.")
    shards = []
    for path in every:
        given = "val" if path in val else "test" if path in test else split_in_path(path.name, path.parent.name)
        shards.append((path, given or "train"))
    wanted = spec.one("split")
    chosen = [shard for shard in shards if wanted is None or shard[1] == usual_split(wanted)]
    if not chosen:
        have = ", ".join(sorted({split for _, split in shards}))
        raise DistilvlError(f"split {wanted!r} of webdataset:{spec.place} is empty.", f"Its splits are: {have}.")
    return chosen


def _expand(place: str, left_out: LeftOut) -> list[AnyPath]:
    paths: list[AnyPath]
    if is_remote(place):
        paths = [path for name in _braces(place) for path in remote_files(name, ".tar", ("**/*",))]
    elif "://" in place or place.startswith("pipe:"):
        problem = f"webdataset:{place} is neither a path nor a plain address."
        raise DistilvlError(problem, "Copy or mount the shards; nothing is run.")
    elif Path(place).is_dir():
        paths = _in_folder(Path(place), left_out)
    else:
        names = (glob.glob(name, recursive=True) if glob.has_magic(name) else [name] for name in _braces(place))  # noqa: PTH207
        paths = [Path(found) for several in names for found in several]
    if not paths:
        raise DistilvlError(f"webdataset:{place} names no shards.", "Give a folder of .tar files, or a pattern.")
    missing = [path for path in paths if isinstance(path, Path) and not path.is_file()]
    if missing:
        count = f"{len(missing)} of {len(paths)} are missing"
        raise DistilvlError(f"there is no shard and no folder {missing[0]} ({count}).", "Check the path.")
    odd = [path for path in paths if PurePosixPath(path.name).suffix.lower() != ".tar"]
    if odd:
        raise DistilvlError(f"{odd[0]} is not a .tar file.", "Decompress it: images are compressed already.")
    return paths


def _in_folder(folder: Path, left_out: LeftOut) -> list[AnyPath]:
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
        told = "; ".join(left_out.lines())
        raise DistilvlError(f"the folder {folder} holds no .tar file; left out {told}.", "Decompress the shards.")
    return found


def _braces(place: str) -> Sequence[str]:
    if "{" not in place:
        return [place]
    try:
        return list(require("braceexpand", extra="webdataset").braceexpand(place))
    except ValueError as error:
        raise DistilvlError(f"webdataset:{place} has a brace too many or too few.", "Check it.") from error
