"""A WebDataset as a dataset like any other: records in memory, images in their shards until they are asked for.

For scoring, for asking a teacher and for `data inspect`. Training streams instead (`ShardSplit`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from distilvl.data.images import BAD_IMAGE_REMEDY
from distilvl.data.records import PairDataset, Record
from distilvl.data.shards.captions import captions_of
from distilvl.data.shards.counts import count_records
from distilvl.data.shards.patterns import Shard, find_shards
from distilvl.data.shards.tar import TEXT_KINDS, samples
from distilvl.data.specs import Spec
from distilvl.errors import BadImageError, DistilvlError


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a shard.

    Attributes:
        path: of the shard.
        offset: of the image's first byte.
        size: bytes.
        member: its name in the archive.
    """

    path: Path
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
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise BadImageError(f"cannot read {self.name}: {error.strerror}.", BAD_IMAGE_REMEDY) from error
        if len(data) < self.size:
            raise BadImageError(f"{self.name} is cut off.", BAD_IMAGE_REMEDY)
        return data


def read_webdataset(spec: Spec, *, skip_bad: bool = False) -> PairDataset:
    """All records of the shards that `spec` names (see `find_shards`), in their order.

    `image_id` is shard and key, such as `train-000/0017`.

    Args:
        spec: `webdataset:PLACE`.
        skip_bad: leave out refused files, incomplete and bad records, and what follows damage, with a warning.

    Raises:
        DistilvlError: no shards or no records, or any of the above unless `skip_bad`.
    """
    shards = find_shards(spec)
    counts = count_records([shard.path for shard in shards], skip_bad=skip_bad)
    root = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    records = [
        record for shard, count in zip(shards, counts, strict=True) for record in _records(shard, count.records, root)
    ]
    if not records:
        raise DistilvlError(f"webdataset:{spec.place} has no records.", "Give shards with images and captions.")
    return PairDataset(f"webdataset:{spec.place}", tuple(records))


def _records(shard: Shard, count: int, root: Path) -> Iterator[Record]:
    label = shard.path.relative_to(root).with_suffix("").as_posix()
    for sample in islice(samples(shard.path, read=TEXT_KINDS), count):
        try:
            captions = captions_of(sample)
        except DistilvlError:
            continue  # the count has said so
        image = sample.image
        source = TarImage(shard.path, image.offset, image.size, image.name)
        yield Record(f"{label}/{sample.key}", source, captions, shard.split)
