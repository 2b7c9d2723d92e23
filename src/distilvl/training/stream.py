"""Batches of images with their captions from WebDataset shards, streamed: memory does not grow with the data."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from distilvl.config import TrainingConfig
from distilvl.data.crops import Crops
from distilvl.data.left_out import NO_FEATURES, LeftOut
from distilvl.data.shards import EpochOrder, ShardSplit
from distilvl.data.shards.counts import captions_of
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.shards import Modality
from distilvl.io.hashes import image_key, text_key
from distilvl.students.dual_encoder import DualEncoder, TokenRows
from distilvl.students.storage import route
from distilvl.training.batch import StepInputs, over_rows, over_texts
from distilvl.training.distributed import Share, share_of
from distilvl.training.sources import BatchSource
from distilvl.training.stream_workers import (
    BatchDecoder,
    DecodedBatch,
    Passed,
    PassedOnce,
    decoded_batches,
    drawn_captions,
    require_enough,
    worker_processes,
)
from distilvl.training.teacher_features import TeacherFeatures, TeacherRows, stored_rows


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


_ALL = slice(None)
_SAMPLE = 8192
logger = logging.getLogger("distilvl")


class StreamSource(BatchSource):
    """Streams `split`, looks the teacher's features up by content, and puts batches on the device.

    Every record is used once an epoch (`EpochOrder`), with captions drawn anew. An image's id is made of its content
    hash: images that are equal byte for byte are never each other's negatives, and no table of ids is kept.

    Args:
        split: of a WebDataset.
        encoder: the student that will read the batches: its preprocessing is used, and its frozen towers are asked.
        config: batch size, captions an image and seed.
        store: where the teacher's features are; none without a teacher.
        views: of which the student sees one of each image, drawn anew each epoch; none for whole images.
        fabric: device and precision.
        workers: how many processes at most decode, 0 for this one; a number that the cores suggest if not given. It
            makes no difference to the batches.

    Raises:
        DistilvlError: fewer records than one batch, or a sampling that needs random access.
    """

    def __init__(
        self,
        split: ShardSplit,
        encoder: DualEncoder,
        config: TrainingConfig,
        store: FeatureStore | None,
        fabric: Fabric,
        views: Crops | None = None,
        *,
        workers: int | None = None,
    ) -> None:
        if config.sampling != "distinct_images":
            raise DistilvlError(
                f"training.sampling is {config.sampling}, which jumps between records, and {split.name} is streamed.",
                "Leave it at distinct_images.",
            )
        self._split, self._encoder, self._store, self._fabric = split, encoder, store, fabric
        self._config, self._workers = config, worker_processes(split.lanes, workers)
        self._share = share = share_of(fabric)
        self._order = EpochOrder(split, config.batch_size, config.seed, node=share.rank, nodes=share.processes)
        at_least = 2 * max(encoder.image_size) if config.reduced_jpeg else None
        self._decoder = BatchDecoder(encoder, config.seed, config.captions_per_image, split.skip_bad, views, at_least)
        self._basis: Tensor | None = None
        self._passed = PassedOnce()

    @property
    def skipped(self) -> int:
        """How many different records were left out, in all epochs so far."""
        return len(self._passed.left_out)

    @property
    def left_out(self) -> LeftOut:
        """These by reason, and what was left out when the shards were counted."""
        return self._split.left_out | self._passed.left_out

    def state(self) -> dict[str, Tensor]:
        """What was left out so far."""
        return self._passed.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self._passed.restore(state)

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self._order.batches

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`.

        Raises:
            DistilvlError: a bad record, or one without features, named by shard and member, unless the split was
                opened with `skip_bad`; then they are counted, and the batch is shorter.
        """
        count, first = 0, ""
        try:
            for batch in decoded_batches(self._order, self._decoder, number, skip, self._workers):
                kept = self._with_features(batch)
                count += len(kept.skipped)
                for one in kept.skipped:
                    first = first or one.text
                    self._passed.add(one)
                yield self._inputs(join(kept, self._share, gather_objects))
        finally:
            # Whoever stops in mid epoch, or after the last batch without asking for one more, is told as well.
            if count:
                logger.warning("epoch %d left out %d bad records, the first: %s", number, count, first)

    @property
    def teacher(self) -> TeacherFeatures | None:
        """A sample of the teacher's rows, where known, from which its principal axes can be found.

        Raises:
            DistilvlError: the store has none of the sampled records.
        """
        known = self.sample(_SAMPLE)
        if known is None or self._store is None:
            return None
        if not len(known[1]):
            raise DistilvlError(
                f"the store {self._store.path} lacks the features of all sampled records of {self._split.name}.",
                _add_to(self._store),
            )
        return known[0]

    def turned(self, basis: Tensor) -> StreamSource:
        """The same with the teacher's rows in other axes, `basis` (D, D) orthogonal."""
        other = copy(self)
        other._basis = basis
        return other

    def fingerprint(self) -> str:
        """A hash of what batches are drawn from, as far as it is known beforehand."""
        vocabulary = sorted(route(self._encoder.student, "text")[0].tokenizer.get_vocab().items())
        facts = (self._split.counts, self._split.captions_total, self._encoder.image_size, vocabulary)
        return hashlib.sha256(str(facts).encode()).hexdigest()

    def sample(self, size: int) -> tuple[TeacherFeatures, Tensor] | None:
        """Teacher rows of `size` records that are spread over the shards, or of all, and the images' ids, (n,).

        Of one caption of each record, and always the same ones; none without a teacher. Nothing is decoded. The order
        is that of an epoch after the last.
        """
        if self._store is None:
            return None
        images: list[bytes] = []
        texts: list[bytes] = []
        # Of all records in each of several processes, so that all start from the same queues.
        order = EpochOrder(self._split, self._config.batch_size, self._config.seed)
        batches = range(min(order.batches, -(-size // order.rows(order.batches - 1))))
        for samples in order.epoch(self._config.epochs, batches):
            for one in samples:
                assert one.image.data is not None  # the stream read it
                try:
                    caption = drawn_captions(captions_of(one), 0.0, 1)[0]
                except DistilvlError:
                    continue  # training will say so
                images.append(image_key(one.image.data))
                texts.append(text_key(caption))
        lacking = {*self._store.missing("image", images), *self._store.missing("text", texts)}
        rows = [row for row in range(len(images)) if row not in lacking][:size]
        images, texts = [images[row] for row in rows], [texts[row] for row in rows]
        known = (self._rows("image", images), self._rows("text", texts))
        return TeacherFeatures(*known), image_ids(images)

    def _with_features(self, batch: DecodedBatch) -> DecodedBatch:
        """The batch, or with `skip_bad` its records that the store knows."""
        if self._store is None:
            return batch
        images = set(self._store.missing("image", batch.seen_keys))
        texts = self._store.missing("text", batch.text_keys)
        lacking = sorted(images | {batch.image_of[row] for row in texts})
        if not lacking:
            return batch
        problems = [
            Passed(
                NO_FEATURES,
                batch.names[row],
                f"{batch.names[row]}: the store {self._store.path} lacks its {'image' if row in images else 'caption'}",
            )
            for row in lacking
        ]
        if not self._split.skip_bad:
            raise DistilvlError(
                f"{problems[0].text} ({len(problems)} such in this batch).",
                _add_to(self._store),
            )
        require_enough(len(batch.names) - len(lacking), problems)
        return _without(batch, set(lacking), problems)

    def _inputs(self, batch: DecodedBatch) -> StepInputs:
        device, encoder, share = self._fabric.device, self._encoder, self._share
        own = batch.tokens[share.rows(len(batch.tokens))]
        ids = image_ids(batch.image_keys).to(device)
        image_of = torch.tensor(batch.image_of, device=device)
        images, mask = batch.pixels, None
        if "image" in encoder.frozen:
            images = torch.from_numpy(over_rows(self._fabric, encoder.pool_images, batch.pixels.numpy()))
        if "text" in encoder.frozen:
            texts = torch.from_numpy(over_texts(self._fabric, encoder, encoder.pool_texts, TokenRows([own])))
        else:
            texts, mask = encoder.pad(own)
        with_teacher = self._store is not None
        return StepInputs(
            images=images.to(device),
            texts=texts.to(device),
            attention_mask=None if mask is None else mask.to(device),
            ids=ids,
            text_ids=ids[image_of],
            image_of=image_of,
            u_image=self._rows("image", batch.seen_keys).on(device, _ALL) if with_teacher else None,
            u_text=self._rows("text", batch.text_keys).on(device, _ALL) if with_teacher else None,
        )

    def _rows(self, modality: Modality, keys: list[bytes]) -> TeacherRows:
        assert self._store is not None
        return TeacherRows(stored_rows(self._store, modality, keys, self._encoder.normalized), self._basis)


def _add_to(store: FeatureStore) -> str:
    return f"Run `distilvl features --teacher ... --data ... --out {store.path}` again to add them."


def image_ids(keys: list[bytes]) -> Tensor:
    """One int64 an image, (n,), equal for equal keys: 62 bits, which `NO_IMAGE` and `EMPTY` are beyond."""
    return torch.tensor([int.from_bytes(key[:8], "big") >> 2 for key in keys], dtype=torch.int64)


def _without(batch: DecodedBatch, lacking: set[int], problems: list[Passed]) -> DecodedBatch:
    images = [row for row in range(len(batch.names)) if row not in lacking]
    texts = [row for row, image in enumerate(batch.image_of) if image not in lacking]
    place = {row: k for k, row in enumerate(images)}
    return DecodedBatch(
        pixels=batch.pixels[images],
        tokens=[batch.tokens[row] for row in texts],
        image_of=[place[batch.image_of[row]] for row in texts],
        image_keys=[batch.image_keys[row] for row in images],
        seen_keys=[batch.seen_keys[row] for row in images],
        text_keys=[batch.text_keys[row] for row in texts],
        names=[batch.names[row] for row in images],
        skipped=[*batch.skipped, *problems],
    )
