"""A WebDataset as a dataset like any other: records in memory, images in their shards until they are asked for.

For scoring, for asking a teacher and for `data inspect`. Training streams instead (`ShardSplit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import PurePosixPath

from distilvl.data.left_out import Faults, LeftOut
from distilvl.data.listing import dataset_of
from distilvl.data.records import PairDataset, Record
from distilvl.data.remote import AnyPath, RemotePath, RemoteReadError
from distilvl.data.shards.counts import captions_of, count_records, left_out_of, no_records
from distilvl.data.shards.groups import TEXT_KINDS
from distilvl.data.shards.split import Shard, find_shards
from distilvl.data.shards.tar import samples
from distilvl.data.specs import Spec
from distilvl.errors import BadImageError, DistilvlError
from distilvl.pictures import BAD_IMAGE_REMEDY


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a shard.

    Attributes:
        path: of the shard.
        offset: of the image's first byte.
        size: bytes.
        member: its name in the archive.
    """

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
            data = self._bytes()
        except RemoteReadError as error:
            raise RemoteReadError(f"{self.member}: {error}") from error
        except OSError as error:
            raise BadImageError(f"cannot read {self.name}: {error.strerror}.", BAD_IMAGE_REMEDY) from error
        if len(data) < self.size:
            raise BadImageError(f"{self.name} is cut off.", BAD_IMAGE_REMEDY)
        return data

    def _bytes(self) -> bytes:
        if isinstance(self.path, RemotePath):
            return self.path.read_range(self.offset, self.size)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def read_webdataset(spec: Spec, *, skip_bad: bool = False) -> PairDataset:
    """All records of the shards that `spec` names (see `find_shards`), in their order.

    `image_id` is shard and key, such as `train-000/0017`.

    Args:
        spec: `webdataset:PLACE`.
        skip_bad: leave out and count refused files, incomplete and bad records, second ones of a name, and what follows
            damage.

    Raises:
        DistilvlError: no shards or no records, or any of the above unless `skip_bad`.
    """
    passed_over = LeftOut()
    shards = find_shards(spec, passed_over)
    counts = count_records([shard.path for shard in shards], skip_bad=skip_bad)
    folders = zip(*(shard.path.parent.parts for shard in shards), strict=False)
    above = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    records = [
        record for shard, count in zip(shards, counts, strict=True) for record in _records(shard, count.records, above)
    ]
    name = f"webdataset:{spec.place}"
    faults = Faults(name, skip_bad=skip_bad)
    faults.left_out.update(passed_over + left_out_of(counts))
    if not records:
        raise no_records(name, faults.left_out)
    return dataset_of(name, records, faults)


def _records(shard: Shard, count: int, above: int) -> Iterator[Record]:
    label = PurePosixPath(*shard.path.parts[above:]).with_suffix("").as_posix()
    for sample in islice(samples(shard.path, read=TEXT_KINDS), count):
        try:
            captions = captions_of(sample)
        except DistilvlError:
            continue  # the count has said so
        image = sample.image
        source = TarImage(shard.path, image.offset, image.size, image.name)
        yield Record(f"{label}/{sample.key}", source, captions, shard.split)
