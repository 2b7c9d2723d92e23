"""A streamed batch in several processes: each read its part of the records, all need to know whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import distributed

from distilvl.errors import DistilvlError
from distilvl.training.distributed import Share
from distilvl.training.sources.stream_workers import DecodedBatch


def join(batch: DecodedBatch, share: Share, gather: Callable[[Any], list[Any]]) -> DecodedBatch:
    """The whole batch, with the pixels of this process's share of it, from the parts of all processes.

    Args:
        batch: the part of this process.
        share: of this process.
        gather: the parts of all processes, in order, from that of each.

    Raises:
        DistilvlError: records were left out, so that the parts are not the shares of what is left.
    """
    if share.processes == 1:
        return batch
    parts = gather([*batch[1:]])
    tokens, image_of, image_keys, text_keys, seen_keys, names, skipped = (
        list(column) for column in zip(*parts, strict=True)
    )
    starts = [sum(map(len, names[:part])) for part in range(share.processes)]
    total = sum(map(len, names))
    own = share.rows(total)
    if (own.start, own.stop - own.start) != (starts[share.rank], len(batch.names)):
        left_out = [problem for some in skipped for problem in some]
        raise DistilvlError(
            f"{left_out[0].text.rstrip('.')}; in several processes no record can be left out.",
            "Take the bad records out of the shards, or train in one process.",
        )
    return DecodedBatch(
        pixels=batch.pixels,
        tokens=_flat(tokens),
        image_of=[start + place for start, some in zip(starts, image_of, strict=True) for place in some],
        image_keys=_flat(image_keys),
        text_keys=_flat(text_keys),
        seen_keys=_flat(seen_keys),
        names=_flat(names),
        skipped=batch.skipped,
    )


def gather_objects(own: Any) -> list[Any]:
    """`own` of every process, in order."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def _flat(parts: list[list[Any]]) -> list[Any]:
    return [one for part in parts for one in part]
