"""Batches of images with their captions from materials in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from distilvl.config import TrainingConfig
from distilvl.data.batches import Batch, PairSampler
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import Share
from distilvl.training.inputs import StepInputs
from distilvl.training.materials import Materials
from distilvl.training.sources.base import BatchSource
from distilvl.training.sources.gathering import drawn_views, gather_images, gather_texts


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
