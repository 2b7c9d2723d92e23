"""Where the batches of a run come from: materials in memory, paired or not, and two sources in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distilvl.config import TrainingConfig
from distilvl.data.batches import Batch, PairSampler
from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.batch import StepInputs
from distilvl.training.distributed import Share
from distilvl.training.materials import Materials


class BatchSource(Protocol):
    """Epochs of batches on the device, a pure function of the seed and the epoch's number.

    A run that was stopped asks for the same epoch again without the batches that it had, and must get those that an
    undisturbed run would have got. In several processes each draws the same batches, and puts its `Share` of the
    rows to encode on its device.
    """

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch, the same in each."""

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep of it, beside its place; no batch depends on that."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: ARG002 (most have none)
        """Take back what `state` gave; empty of a checkpoint that has nothing of it."""
        return


Rows = npt.NDArray[np.int64]
# Part of the views' seed, beside the run's: the order of an epoch's images comes from the seed and the epoch alone.
_VIEWS = 2


def drawn_views(train: Materials, seed: int, epoch: int) -> Rows | None:
    """Which view stands for each image in this epoch, (n,); nothing where there are only whole images."""
    if train.views == 1:
        return None
    return np.random.default_rng((seed, _VIEWS, epoch)).integers(0, train.views, train.count)


def gather_images(
    train: Materials, images: Rows, views: Rows | None, device: torch.device, share: Share
) -> tuple[Tensor, Tensor | None]:
    """What the student is given of the share of these n images, and the teacher's rows of all, (n, D), where known.

    Of each image it is the view in `views`, (n,), or the whole one without.
    """
    rows = images * train.views if views is None else images * train.views + views
    u_image = None if train.teacher is None else train.teacher.images.on(device, rows)
    return torch.from_numpy(train.images[rows[share.rows(len(rows))]]).to(device), u_image


def gather_texts(
    train: Materials, encoder: DualEncoder, rows: Rows, device: torch.device, share: Share
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of the share of these n rows: token ids, padded by `encoder`, or a frozen tower's rows; the mask of token ids.

    And the teacher's of all, (n, D), where known.
    """
    mask, own = None, rows[share.rows(len(rows))]
    if train.pooled_texts is None:
        texts, mask = encoder.pad([train.tokens[row] for row in own])
    else:
        texts = torch.from_numpy(train.pooled_texts[own])
    u_text = None if train.teacher is None else train.teacher.texts.on(device, rows)
    return texts.to(device), None if mask is None else mask.to(device), u_text


class PairSource(BatchSource):
    """Draws rows of `train` and puts them on the device.

    Args:
        train: the training split, made ready.
        encoder: the student that will read the batches; it pads its token ids.
        config: batch size, seed and sampling.
        device: where the batches go.
        share: which rows of a batch this process encodes.

    Raises:
        DistilvlError: fewer images than one batch holds.
    """

    def __init__(
        self,
        train: Materials,
        encoder: DualEncoder,
        config: TrainingConfig,
        device: torch.device,
        share: Share = Share(),  # noqa: B008 (frozen)
    ) -> None:
        self.share = share
        self.train, self.encoder, self.device, self.seed = train, encoder, device, config.seed
        self.pictures = train.pictures
        counts = np.bincount(train.caption_image)
        self.sampler = PairSampler(
            counts.tolist(), config.batch_size, config.seed, config.sampling, config.captions_per_image
        )

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.sampler.batches_per_epoch

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        views = drawn_views(self.train, self.seed, number)
        for batch in self.sampler.epoch(number, skip=skip):
            yield self.gather(batch if views is None else replace(batch, views=views[batch.images]))

    def gather(self, batch: Batch) -> StepInputs:
        """The batch on the device."""
        ids, image_of = (
            torch.from_numpy(rows).to(self.device) for rows in (self.pictures[batch.images], batch.image_of)
        )
        images, u_image = gather_images(self.train, batch.images, batch.views, self.device, self.share)
        texts, attention_mask, u_text = gather_texts(self.train, self.encoder, batch.captions, self.device, self.share)
        return StepInputs(
            images=images,
            texts=texts,
            attention_mask=attention_mask,
            ids=ids,
            text_ids=ids[image_of],
            image_of=image_of,
            u_image=u_image,
            u_text=u_text,
        )


EXTRA_IDS = 1 << 40
"""What is added to the extra items' ids, so that none of them is taken for an item of the main data in the queues."""


class AlternatingSource(BatchSource):
    """An epoch of `main` with steps of `extra` spread evenly between its own.

    The extra steps of all epochs are one stream that goes through `extra`'s own epochs, one after another, however long
    these are. Each is again a function of the seed and its number, so a stopped run continues exactly.

    Args:
        main: what an epoch is of.
        extra: what is learnt beside it.
        share: of all steps, in (0, 1), that are `extra`'s; at least one an epoch.
    """

    def __init__(self, main: BatchSource, extra: BatchSource, share: float) -> None:
        self.main, self.extra = main, extra
        self._extra_steps = max(1, round(main.batches_per_epoch * share / (1 - share)))

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch, of both."""
        return self.main.batches_per_epoch + self._extra_steps

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
        for name, part in (("main.", self.main), ("extra.", self.extra)):
            part.restore({key[len(name) :]: value for key, value in state.items() if key.startswith(name)})

    def _extra_before(self, step: int) -> int:
        """How many of an epoch's first `step` steps are extra."""
        return step * self._extra_steps // self.batches_per_epoch

    def _extra_stream(self, first: int) -> Iterator[StepInputs]:
        """The extra batches from number `first` of all, endless."""
        epoch, skip = divmod(first, self.extra.batches_per_epoch)
        while True:
            for inputs in self.extra.epoch(epoch, skip=skip):
                yield replace(inputs, ids=inputs.ids + EXTRA_IDS, text_ids=inputs.text_ids + EXTRA_IDS)
            epoch, skip = epoch + 1, 0


# The second part of a text stream's seed, after the run's: one seed for both sides would give equally many images and
# texts the same permutation, and so make pairs of them.
_TEXTS = 1


class UnpairedSource(BatchSource):
    """Draws images and texts of `train` independently of each other, and puts them on the device.

    An epoch has each image once, less a last batch that would be shorter. Texts come from an endless stream of all of
    them, shuffled anew when all had their turn: every text is seen equally often, however many there are. A step has
    `captions_per_image` times as many texts as images.

    Args:
        train: images and texts, made ready.
        encoder: the student that will read the batches; it pads its token ids.
        config: batch size, texts an image and seed.
        device: where the batches go.
        share: which rows of a batch this process encodes.

    Raises:
        DistilvlError: fewer images or texts than one batch holds, or a sampling that goes by pairs.
    """

    def __init__(
        self,
        train: Materials,
        encoder: DualEncoder,
        config: TrainingConfig,
        device: torch.device,
        share: Share = Share(),  # noqa: B008 (frozen)
    ) -> None:
        self.share = share
        self.train, self.encoder, self.device, self.seed = train, encoder, device, config.seed
        self.pictures = train.pictures
        self.images_a_step, self.texts_a_step = config.batch_size, config.batch_size * config.captions_per_image
        if config.sampling != "distinct_images":
            raise DistilvlError(
                f"training.sampling is {config.sampling}, which draws pairs, and there are none.",
                "Leave it at distinct_images.",
            )
        sides = (("images", train.count, self.images_a_step), ("texts", len(train.tokens), self.texts_a_step))
        for what, have, need in sides:
            if have < need:
                raise DistilvlError(
                    f"{have} training {what} are fewer than the {need} of a batch.",
                    f"Use a smaller training.batch_size or more {what}.",
                )

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.train.count // self.images_a_step

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        images = np.random.default_rng((self.seed, number)).permutation(self.train.count)
        views = drawn_views(self.train, self.seed, number)
        texts = self._texts(number)
        for step in range(skip, self.batches_per_epoch):
            rows = _part(images, step, self.images_a_step)
            shown = None if views is None else views[rows]
            yield self._gather(rows, shown, _part(texts, step, self.texts_a_step))

    def _texts(self, number: int) -> Rows:
        """The text rows of epoch `number`, a stretch of the stream."""
        total, drawn = len(self.train.tokens), self.batches_per_epoch * self.texts_a_step
        turns, places = np.divmod(np.arange(number * drawn, (number + 1) * drawn), total)
        orders = {
            turn: np.random.default_rng((self.seed, _TEXTS, turn)).permutation(total) for turn in np.unique(turns)
        }
        return np.concatenate([orders[turn][places[turns == turn]] for turn in orders])

    def _gather(self, image_rows: Rows, views: Rows | None, text_rows: Rows) -> StepInputs:
        images, u_image = gather_images(self.train, image_rows, views, self.device, self.share)
        texts, attention_mask, u_text = gather_texts(self.train, self.encoder, text_rows, self.device, self.share)
        return StepInputs(
            images=images,
            texts=texts,
            attention_mask=attention_mask,
            ids=torch.from_numpy(self.pictures[image_rows]).to(self.device),
            text_ids=torch.from_numpy(text_rows).to(self.device),
            image_of=None,
            u_image=u_image,
            u_text=u_text,
        )


def _part(rows: Rows, step: int, size: int) -> Rows:
    return rows[step * size : (step + 1) * size]
