"""Where the batches of a run come from: items in memory, paired or not, and two sources in turn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distilvl.config import TrainingConfig
from distilvl.data.batches import Batch, PairSampler
from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import Share
from distilvl.training.materials import Materials
from distilvl.training.run_folder import under

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepInputs:
    """A batch of B images and N texts on the device.

    In several processes, `images`, `texts` and `attention_mask` are the process's share of these rows only; the rest
    is the whole batch's in each of them.
    """

    images: Tensor  # (B, 3, H, W) uint8 pixels, or (B, width) outputs of a frozen tower
    texts: Tensor  # (N, L) token ids, (N, L, H) outputs of a tower's lower layers, or (N, width) of a frozen tower
    attention_mask: Tensor | None  # (N, L) int64, with token ids and outputs for each
    ids: Tensor  # (B,) row of each image in the training split, or of the first one with the same bytes
    text_ids: Tensor  # (N,) rows of images for captions; numbers of their own without pairs
    image_of: Tensor | None  # (N,) position of each caption's image; none when images and texts are no pairs
    u_image: Tensor | None  # (B, D) teacher features, where known
    u_text: Tensor | None  # (N, D)


class BatchSource(Protocol):
    """Epochs of batches on the device, a pure function of the seed and the epoch's number.

    A run that was stopped gets the rest of its epoch by `skip`. In several processes each draws the same batches, and
    puts its `Share` of the rows to encode on its device. `batches_per_epoch` is the same in each epoch.
    """

    batches_per_epoch: int

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep of it, beside its place; no batch depends on that."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: ARG002 (most have none)
        """Take back what `state` gave; empty of a checkpoint that has nothing of it."""
        return


# Second parts of seeds, after the run's. The order of an epoch's images comes from the seed and the epoch alone. With
# one seed for both sides, equally many images and texts would get the same permutation, and so be made pairs.
_TEXTS, _CROPS, _MIRRORS = 1, 2, 3
ALL = Share()  # of one process
_NO_PAIRS = np.zeros(0, dtype=np.int64)


class _MemorySource(BatchSource):
    """Puts rows of `train` on the device, padded by `encoder`; images and texts of the process's `share` alone."""

    def __init__(
        self, train: Materials, encoder: DualEncoder, config: TrainingConfig, device: torch.device, share: Share = ALL
    ) -> None:
        self.train, self.encoder, self.device, self.share = train, encoder, device, share
        self.seed, self.pictures, self.mirror = config.seed, train.pictures, config.mirror
        self._begin(config)

    def _begin(self, config: TrainingConfig) -> None:
        """What is made once, before the first epoch, with `batches_per_epoch`."""
        raise NotImplementedError

    def _drawn_crops(self, epoch: int) -> Rows | None:
        """Which crop stands for each image in this epoch, (n,); nothing where there are only whole images."""
        if self.train.crops == 1:
            return None
        return np.random.default_rng((self.seed, _CROPS, epoch)).integers(0, self.train.crops, self.train.count)

    def _drawn_mirrors(self, epoch: int) -> npt.NDArray[np.bool_] | None:
        """Whether its mirror image stands for each image in this epoch, (n,)."""
        if not self.mirror:
            return None
        return np.random.default_rng((self.seed, _MIRRORS, epoch)).random(self.train.count) < 0.5

    def _inputs(self, batch: Batch, texts: Rows, image_of: Tensor | None) -> StepInputs:
        """The share of the B images of `batch` and of N texts; teacher features of all."""
        train, device, images = self.train, self.device, batch.images
        rows = images * train.crops + (0 if batch.crops is None else batch.crops)
        share = self.share.rows(len(rows))
        ids = torch.from_numpy(self.pictures[images]).to(device)
        own, mask = texts[self.share.rows(len(texts))], None
        if train.stored_texts is not None:
            text_rows, mask = train.stored_texts.padded(own)
        elif train.pooled_texts is None:
            text_rows, mask = self.encoder.pad([train.tokens[row] for row in own])
        else:
            text_rows = torch.from_numpy(train.pooled_texts[own])
        return StepInputs(
            images=train.image_rows(rows[share], None if batch.mirrored is None else batch.mirrored[share]).to(device),
            texts=text_rows.to(device),
            attention_mask=None if mask is None else mask.to(device),
            ids=ids,
            text_ids=torch.from_numpy(texts).to(device) if image_of is None else ids[image_of],
            image_of=image_of,
            u_image=None if train.teacher is None else train.teacher.images.on(device, rows),
            u_text=None if train.teacher is None else train.teacher.texts.on(device, texts),
        )


class PairSource(_MemorySource):
    """Draws images with their captions, as `config.sampling` says; of no fewer images than one batch holds."""

    def _begin(self, config: TrainingConfig) -> None:
        counts = np.bincount(self.train.caption_image).tolist()
        self.sampler = PairSampler(counts, config.batch_size, config.seed, config.sampling, config.captions_per_image)
        self.batches_per_epoch = self.sampler.batches_per_epoch

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """As `BatchSource.epoch`."""
        crops, mirrored = self._drawn_crops(number), self._drawn_mirrors(number)
        for batch in self.sampler.epoch(number, skip=skip):
            yield self.gather(replace(batch, crops=_of(crops, batch.images), mirrored=_of(mirrored, batch.images)))

    def gather(self, batch: Batch) -> StepInputs:
        """The batch on the device."""
        image_of = torch.from_numpy(batch.image_of).to(self.device)
        return self._inputs(batch, batch.captions, image_of)


Drawn = TypeVar("Drawn", bound=np.generic)


def _of(drawn: npt.NDArray[Drawn] | None, rows: Rows) -> npt.NDArray[Drawn] | None:
    return None if drawn is None else drawn[rows]


class UnpairedSource(_MemorySource):
    """Draws images and texts independently of each other.

    An epoch has each image once, less a last batch that would be shorter. Texts come from an endless stream of all of
    them, shuffled anew when all had their turn; a step has `captions_per_image` times as many as images.
    `DistilvlError` for fewer images or texts than one batch holds, or a sampling that goes by pairs.
    """

    def _begin(self, config: TrainingConfig) -> None:
        self.images_a_step, self.texts_a_step = config.batch_size, config.batch_size * config.captions_per_image
        if config.sampling != "distinct_images":
            problem = f"training.sampling is {config.sampling}, which draws pairs, and there are none."
            raise DistilvlError(problem, "Leave it at distinct_images.")
        counts = (self.train.count, self.images_a_step), (len(self.train.tokens), self.texts_a_step)
        for what, (have, need) in zip(("images", "texts"), counts, strict=True):
            if have < need:
                remedy = f"Use a smaller training.batch_size or more {what}."
                raise DistilvlError(f"{have} training {what} are fewer than the {need} of a batch.", remedy)
        self.batches_per_epoch = self.train.count // self.images_a_step

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        images = np.random.default_rng((self.seed, number)).permutation(self.train.count)
        crops, mirrored, texts = self._drawn_crops(number), self._drawn_mirrors(number), self._texts(number)
        for step in range(skip, self.batches_per_epoch):
            rows = images[step * self.images_a_step :][: self.images_a_step]
            text_rows = texts[step * self.texts_a_step :][: self.texts_a_step]
            batch = Batch(rows, text_rows, _NO_PAIRS, crops=_of(crops, rows), mirrored=_of(mirrored, rows))
            yield self._inputs(batch, text_rows, None)

    def _texts(self, number: int) -> Rows:
        total, drawn = len(self.train.tokens), self.batches_per_epoch * self.texts_a_step
        turns, places = np.divmod(np.arange(number * drawn, (number + 1) * drawn), total)
        seeds = {turn: np.random.default_rng((self.seed, _TEXTS, turn)) for turn in np.unique(turns)}
        return np.concatenate([seed.permutation(total)[places[turns == turn]] for turn, seed in seeds.items()])


EXTRA_IDS = 1 << 40
"""What is added to the extra items' ids, so that none of them is taken for an item of the main data in the queues."""


class AlternatingSource(BatchSource):
    """An epoch of `main` with steps of `extra` spread evenly between its own.

    Of all steps `share`, in (0, 1), are `extra`'s; at least one an epoch. The extra steps of all epochs are one stream
    through `extra`'s own epochs, however long these are.
    """

    def __init__(self, main: BatchSource, extra: BatchSource, share: float) -> None:
        self.main, self.extra = main, extra
        self._extra_steps = max(1, round(main.batches_per_epoch * share / (1 - share)))
        self.batches_per_epoch = main.batches_per_epoch + self._extra_steps

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        gone = self._extra_before(skip)
        main = self.main.epoch(number, skip=skip - gone)
        extra = self._extra_stream(number * self._extra_steps + gone)
        for step in range(skip, self.batches_per_epoch):
            yield next(extra) if self._extra_before(step + 1) > self._extra_before(step) else next(main)

    def state(self) -> dict[str, Tensor]:
        """Of both."""
        parts = {"main": self.main, "extra": self.extra}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.main.restore(under(state, "main."))
        self.extra.restore(under(state, "extra."))

    def _extra_before(self, step: int) -> int:
        return step * self._extra_steps // self.batches_per_epoch

    def _extra_stream(self, first: int) -> Iterator[StepInputs]:
        epoch, skip = divmod(first, self.extra.batches_per_epoch)
        while True:
            for inputs in self.extra.epoch(epoch, skip=skip):
                yield replace(inputs, ids=inputs.ids + EXTRA_IDS, text_ids=inputs.text_ids + EXTRA_IDS)
            epoch, skip = epoch + 1, 0
