"""Batches of images with their captions from WebDataset shards, streamed: memory does not grow with the data."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from itertools import accumulate, chain
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from distilvl.config import TrainingConfig
from distilvl.data.crops import Crops
from distilvl.data.left_out import NO_FEATURES, LeftOut
from distilvl.data.shards import EpochOrder, ShardSplit
from distilvl.data.shards.counts import captions_of
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.shards import Modality
from distilvl.io.hashes import image_key, text_key
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.storage import route
from distilvl.students.token_rows import TokenRows
from distilvl.training import stream_workers as workers_of
from distilvl.training.distributed import Share, gather_objects, share_of
from distilvl.training.sources import BatchSource, StepInputs
from distilvl.training.stream_workers import BadRecord, BatchDecoder, DecodedBatch, LeftOutOnce, decoded_batches
from distilvl.training.student import encode_images_of, encode_texts_of
from distilvl.training.teacher_features import StoredFeatures, TeacherFeatures, read_features

_SAMPLE = 8192
logger = logging.getLogger("distilvl")


class StreamSource(BatchSource):
    """Streams `split`, looks the teacher's features up by content, and puts batches on the device.

    Every record is used once an epoch (`EpochOrder`), with captions drawn anew. An image's id is made of its content
    hash, so that images that are equal byte for byte are never each other's negatives.

    The student `encoder` preprocesses, and its frozen towers encode; it sees one of the `crops` of each image, drawn
    anew each epoch. At most so many `workers` decode: 0 for this process, as many as the cores suggest if not given.
    `DistilvlError` for fewer records than one batch, or a sampling that needs random access.
    """

    def __init__(
        self,
        split: ShardSplit,
        encoder: DualEncoder,
        config: TrainingConfig,
        store: FeatureStore | None,
        fabric: Fabric,
        crops: Crops | None = None,
        *,
        workers: int | None = None,
    ) -> None:
        if config.sampling != "distinct_images":
            raise DistilvlError(
                f"training.sampling is {config.sampling}, which jumps between records, and {split.name} is streamed.",
                "Leave it at distinct_images.",
            )
        self._split, self._encoder, self._store, self._fabric = split, encoder, store, fabric
        self._config, self._workers = config, workers_of.worker_processes(split.lanes, workers)
        self._share = share = share_of(fabric)
        self._order = EpochOrder(split, config.batch_size, config.seed, node=share.rank, nodes=share.processes)
        at_least = 2 * max(encoder.image_size) if config.reduced_jpeg else None
        self._decoder = BatchDecoder(encoder, config.seed, config.captions_per_image, split.skip_bad, crops, at_least)
        self.batches_per_epoch = self._order.batches
        self._basis: Tensor | None = None
        self._bad = LeftOutOnce()

    @property
    def skipped(self) -> int:
        """How many different records were left out, in all epochs so far."""
        return len(self._bad.left_out)

    @property
    def left_out(self) -> LeftOut:
        """These by reason, and what was left out when the shards were counted."""
        return self._split.left_out | self._bad.left_out

    def state(self) -> dict[str, Tensor]:
        """What was left out so far."""
        return self._bad.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self._bad.restore(state)

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """As `BatchSource.epoch`; a bad record, or one without features, is a `DistilvlError`, or counted."""
        bad: list[str] = []
        try:
            for batch in decoded_batches(self._order, self._decoder, number, skip, self._workers):
                kept = self._with_features(batch)
                for one in kept.skipped:
                    bad.append(one.text)
                    self._bad.add(one)
                yield self._inputs(join(kept, self._share, gather_objects))
        finally:
            # Whoever stops in mid epoch, or after the last batch without asking for one more, is told as well.
            if bad:
                logger.warning("epoch %d left out %d bad records, the first: %s", number, len(bad), bad[0])

    @property
    def teacher(self) -> TeacherFeatures | None:
        """A sample of the teacher features, where known, from which their principal axes can be found."""
        known = self.sample(_SAMPLE)
        if known is None or self._store is None:
            return None
        if not len(known[1]):
            problem = f"the store {self._store.path} lacks the features of all sampled records of {self._split.name}."
            raise DistilvlError(problem, _add_to(self._store))
        return known[0]

    def turned(self, basis: Tensor) -> StreamSource:
        """The same with the teacher features in other axes, `basis` (D, D) orthogonal."""
        other = copy(self)
        other._basis = basis
        return other

    def fingerprint(self) -> str:
        """A hash of what batches are drawn from, as far as it is known beforehand."""
        vocabulary = sorted(route(self._encoder.student, "text")[0].tokenizer.get_vocab().items())
        facts = (self._split.counts, self._split.captions_total, self._encoder.image_size, vocabulary)
        return hashlib.sha256(str(facts).encode()).hexdigest()

    def sample(self, size: int) -> tuple[TeacherFeatures, Tensor] | None:
        """Teacher features of `size` records spread over the shards, or of all, and the images' ids, (n,).

        Of one caption of each record, in the order of an epoch after the last; none without a teacher.
        """
        if self._store is None:
            return None
        keys: list[tuple[bytes, bytes]] = []
        # Of all records in each of several processes, so that all start from the same queues.
        order = EpochOrder(self._split, self._config.batch_size, self._config.seed)
        batches = range(min(order.batches, -(-size // order.rows(order.batches - 1))))
        for samples in order.epoch(self._config.epochs, batches):
            for one in samples:
                assert one.image.data is not None  # the stream read it
                with suppress(DistilvlError):  # training will say so
                    keys.append((image_key(one.image.data), text_key(captions_of(one)[0])))
        images, texts = ([pair[side] for pair in keys] for side in (0, 1))
        lacking = {*self._store.missing("image", images), *self._store.missing("text", texts)}
        rows = [row for row in range(len(keys)) if row not in lacking][:size]
        images, texts = [images[row] for row in rows], [texts[row] for row in rows]
        return TeacherFeatures(self._features("image", images), self._features("text", texts)), image_ids(images)

    def _with_features(self, batch: DecodedBatch) -> DecodedBatch:
        """The batch, or with `skip_bad` its records that the store knows."""
        if self._store is None:
            return batch
        what = {batch.image_of[row]: "caption" for row in self._store.missing("text", batch.text_keys)}
        what |= dict.fromkeys(self._store.missing("image", batch.seen_keys), "image")
        if not what:
            return batch
        texts = {row: f"the store {self._store.path} lacks its {what[row]}" for row in sorted(what)}
        names = batch.names
        problems = [BadRecord(NO_FEATURES, names[row], f"{names[row]}: {text}") for row, text in texts.items()]
        if not self._split.skip_bad:
            raise DistilvlError(f"{problems[0].text} ({len(problems)} such in this batch).", _add_to(self._store))
        workers_of.require_enough(len(names) - len(what), problems)
        return _without(batch, set(what), problems)

    def _inputs(self, batch: DecodedBatch) -> StepInputs:
        device, encoder = self._fabric.device, self._encoder
        own = batch.tokens[self._share.rows(len(batch.tokens))]
        ids = image_ids(batch.image_keys).to(device)
        image_of = torch.tensor(batch.image_of, device=device)
        images, mask = batch.pixels, None
        if encoder.stores_images:
            images = torch.from_numpy(encode_images_of(self._fabric, encoder.store_images, batch.pixels.numpy()))
        if "text" in encoder.frozen:
            texts = torch.from_numpy(encode_texts_of(self._fabric, encoder, encoder.pool_texts, TokenRows([own])))
        else:
            texts, mask = encoder.pad(own)
        if mask is not None and encoder.text_cut is not None:
            with torch.no_grad(), self._fabric.autocast():
                texts = encoder.store_texts(texts.to(device), mask.to(device))
        u_image, u_text = None, None
        if self._store is not None:
            u_image = self._features("image", batch.seen_keys).on(device, slice(None))
            u_text = self._features("text", batch.text_keys).on(device, slice(None))
        return StepInputs(
            images=images.to(device),
            texts=texts.to(device),
            attention_mask=None if mask is None else mask.to(device),
            ids=ids,
            text_ids=ids[image_of],
            image_of=image_of,
            u_image=u_image,
            u_text=u_text,
        )

    def _features(self, modality: Modality, keys: list[bytes]) -> StoredFeatures:
        assert self._store is not None
        return StoredFeatures(read_features(self._store, modality, keys, self._encoder.normalized), self._basis)


def join(batch: DecodedBatch, share: Share, gather: Callable[[Any], list[Any]]) -> DecodedBatch:
    """The whole batch, with the pixels of this process's share of it; `DistilvlError` where records were left out."""
    if share.processes == 1:
        return batch
    columns = dict(zip(batch._fields[1:], zip(*gather([*batch[1:]]), strict=True), strict=True))
    starts = [0, *accumulate(map(len, columns["names"]))]
    own = share.rows(starts[-1])
    if (own.start, own.stop - own.start) != (starts[share.rank], len(batch.names)):
        raise DistilvlError(
            f"{next(chain(*columns['skipped'])).text.rstrip('.')}; in several processes no record can be left out.",
            "Take the bad records out of the shards, or train in one process.",
        )
    owners = [start + place for start, some in zip(starts[:-1], columns["image_of"], strict=True) for place in some]
    whole: dict[str, Any] = {field: list(chain(*values)) for field, values in columns.items()}
    return batch._replace(**{**whole, "image_of": owners, "skipped": batch.skipped})


def _add_to(store: FeatureStore) -> str:
    return f"Run `distilvl features --teacher ... --data ... --out {store.path}` again to add them."


def image_ids(keys: list[bytes]) -> Tensor:
    """One int64 an image, (n,), equal for equal keys: 62 bits, which `NO_IMAGE` and `EMPTY` are beyond."""
    return torch.tensor([int.from_bytes(key[:8], "big") >> 2 for key in keys], dtype=torch.int64)


def _without(batch: DecodedBatch, lacking: set[int], problems: list[BadRecord]) -> DecodedBatch:
    images = [row for row in range(len(batch.names)) if row not in lacking]
    texts = [row for row, image in enumerate(batch.image_of) if image not in lacking]
    place = {row: k for k, row in enumerate(images)}
    rows_of = dict.fromkeys(("names", "image_keys", "seen_keys"), images)
    rows_of |= dict.fromkeys(("tokens", "text_keys"), texts)
    kept: dict[str, Any] = {field: [getattr(batch, field)[row] for row in rows] for field, rows in rows_of.items()}
    owners = [place[batch.image_of[row]] for row in texts]
    return batch._replace(**kept, pixels=batch.pixels[images], image_of=owners, skipped=[*batch.skipped, *problems])
