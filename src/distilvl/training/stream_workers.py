"""What the worker processes of a stream do: read shards, decode, resize, tokenize."""

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from distilvl.data.crops import WHOLE, Crops
from distilvl.data.left_out import HELD, NOT_DECODED, LeftOut
from distilvl.data.shards import EpochOrder
from distilvl.data.shards.counts import captions_of, reason_of
from distilvl.data.shards.tar import Sample
from distilvl.errors import BadImageError, DistilvlError
from distilvl.io.hashes import image_key, text_key
from distilvl.pictures import decode_image
from distilvl.students.dual_encoder import DualEncoder


class BadRecord(NamedTuple):
    """A record that is left out: the reason by which it is counted, its image's name, and what is wrong in words."""

    reason: str
    name: str
    text: str


class LeftOutOnce:
    """The records that were left out so far, by reason (`left_out`), each counted once however many epochs meet it."""

    def __init__(self) -> None:
        self.left_out = LeftOut()
        self._seen: set[int] = set()  # hashes: names would take several times the memory

    def add(self, one: BadRecord) -> None:
        """Count a record, unless it was counted before."""
        digest = hashlib.blake2b(f"{one.reason}\0{one.name}".encode("utf-8", "backslashreplace"), digest_size=8)
        mark = int.from_bytes(digest.digest(), "big", signed=True)
        if mark not in self._seen:
            self._seen.add(mark)
            self.left_out.add(one.reason, one.name)

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes; nothing where nothing was left out."""
        if not self._seen:
            return {}
        told = torch.frombuffer(bytearray(json.dumps(self.left_out.as_dict(HELD)).encode("utf-8")), dtype=torch.uint8)
        return {"seen": torch.tensor(sorted(self._seen), dtype=torch.int64), "told": told}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`; an empty one is of a run that had left nothing out, or of an older version."""
        if state:
            self._seen = set(state["seen"].tolist())
            self.left_out = LeftOut.from_dict(json.loads(bytes(state["told"].tolist())))


_DRAWS = 2  # the part of a batch's seed that keeps its captions apart from the order of records
_AT_ONCE = 8  # photographs held at full size
_MOST_WORKERS = 8


class DecodedBatch(NamedTuple):
    """B images and N captions of them, on the CPU; keys are content hashes."""

    pixels: Tensor  # (B, 3, H, W) uint8
    tokens: list[list[int]]  # of each of the N captions
    image_of: list[int]  # the position of each caption's image
    image_keys: list[bytes]
    text_keys: list[bytes]
    seen_keys: list[bytes]  # of the crops of the images that the student sees; without crops the images' own
    names: list[str]  # of the images, for messages
    skipped: list[BadRecord]


@dataclass(frozen=True)
class BatchDecoder:
    """Turns samples into a `DecodedBatch`, by `resize` and `tokenize` of the student."""

    encoder: DualEncoder
    seed: int
    captions_a_step: int  # drawn for each image, or all that it has if those are fewer
    skip_bad: bool
    crops: Crops | None = None  # of which one is drawn for each image; none for whole images
    at_least: int | None = None  # see `decode_image`

    def decode(self, samples: Sequence[Sample], epoch: int, batch: int) -> DecodedBatch:
        """The samples of one batch; `DistilvlError` at a bad record or, with `skip_bad`, fewer than two good ones."""
        draws = np.random.default_rng((self.seed, epoch, _DRAWS, batch)).random((len(samples), 2)).tolist()
        pixels, keys, seen, names, captions, skipped = [], [], [], [], [], []
        waiting: list[Image.Image] = []
        for sample, (draw, crop) in zip(samples, draws, strict=True):
            assert sample.image.data is not None  # the stream read it
            try:
                found = captions_of(sample)
                image = decode_image(sample.image.data, sample.where, self.at_least)
            except DistilvlError as error:
                if not self.skip_bad:
                    raise
                reason = (error.reason or NOT_DECODED) if isinstance(error, BadImageError) else reason_of(error)
                skipped.append(BadRecord(reason, sample.where, str(error)))
                continue
            key = image_key(sample.image.data)
            chosen = WHOLE if self.crops is None else self.crops.crop(key, int(crop * self.crops.count))
            waiting.append(chosen.of(image))
            keys.append(key)
            seen.append(chosen.key(key))
            names.append(sample.where)
            # In a circle from the one at share `draw` in [0, 1).
            first, count = int(draw * len(found)), min(self.captions_a_step, len(found))
            captions.append([found[(first + k) % len(found)] for k in range(count)])
            if len(waiting) == _AT_ONCE:
                pixels.append(self.encoder.resize(waiting))
                waiting = []
        require_enough(len(keys), skipped)
        if waiting:
            pixels.append(self.encoder.resize(waiting))
        texts = [caption for some in captions for caption in some]
        image_of = [row for row, some in enumerate(captions) for _ in some]
        text_keys, tokens = [text_key(text) for text in texts], self.encoder.tokenize(texts)
        decoded = torch.from_numpy(np.concatenate(pixels))
        return DecodedBatch(decoded, tokens, image_of, keys, text_keys, seen, names, skipped)


def require_enough(good: int, skipped: Sequence[BadRecord]) -> None:
    """That a batch has the two records that a loss needs; `DistilvlError` with the first reason otherwise."""
    if good < 2:
        problem = f"all records of a batch but {good} are bad, the first: {skipped[0].text.rstrip('.')}."
        raise DistilvlError(problem, "Look at the data with `distilvl data inspect`.")


class _Decoding(IterableDataset[DecodedBatch | DistilvlError]):
    """The batches of one epoch from `first` on; worker k of n takes every n-th, from the k-th on."""

    def __init__(self, order: EpochOrder, decoder: BatchDecoder, epoch: int, first: int) -> None:
        self._order, self._decoder, self._epoch, self._first = order, decoder, epoch, first

    def __iter__(self) -> Iterator[DecodedBatch | DistilvlError]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = range(self._first + number, self._order.batches, workers)
        try:
            for batch, samples in zip(batches, self._order.epoch(self._epoch, batches), strict=True):
                yield self._decoder.decode(samples, self._epoch, batch)
        except DistilvlError as error:
            # Raised here, it would reach the user wrapped in the traces of two processes.
            yield error


def decoded_batches(
    order: EpochOrder, decoder: BatchDecoder, epoch: int, first: int, workers: int
) -> Iterator[DecodedBatch]:
    """Batches of an epoch from number `first` on, in order, decoded by `workers` processes (0: by this one)."""
    # A tokenizer that has used threads cannot do so in a fork, and would say so in each.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    loader = DataLoader(
        _Decoding(order, decoder, epoch, first),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
        # A loader draws a seed for its workers. From torch's own generator, that would change the run's dropout.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, DistilvlError):
            raise batch
        yield batch


def worker_processes(lanes: int, most: int | None = None) -> int:
    """How many processes, forked, read and decode: a divisor of `lanes`, at most `most` (else the cores; at most 8)."""
    if most is None:
        most = min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 0
    return max((k for k in range(1, most + 1) if lanes % k == 0), default=0)


def _as_it_is(batch: Any) -> Any:
    return batch
