"""Batches of images with their captions from materials in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distilvl.config import TrainingConfig
from distilvl.data.batches import Batch, PairSampler
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.inputs import StepInputs
from distilvl.training.materials import Materials


class PairSource:
    """Draws rows of `train` and puts them on the device.

    Args:
        train: the training split, made ready.
        encoder: the student that will read the batches; it pads its token ids.
        config: batch size, seed and sampling.
        device: where the batches go.

    Raises:
        DistilvlError: fewer images than one batch holds.
    """

    def __init__(self, train: Materials, encoder: DualEncoder, config: TrainingConfig, device: torch.device) -> None:
        self.train, self.encoder, self.device = train, encoder, device
        counts = [len(record.captions) for record in train.dataset]
        self.sampler = PairSampler(counts, config.batch_size, config.seed, config.sampling, config.captions_per_image)

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.sampler.batches_per_epoch

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        return map(self.gather, self.sampler.epoch(number, skip=skip))

    def gather(self, batch: Batch) -> StepInputs:
        """The batch on the device."""
        device, train, teacher = self.device, self.train, self.train.teacher
        ids, image_of = (torch.from_numpy(rows).to(device) for rows in (batch.images, batch.image_of))
        attention_mask = None
        if train.pooled_texts is None:
            texts, attention_mask = self.encoder.pad([train.tokens[row] for row in batch.captions])
        else:
            texts = torch.from_numpy(train.pooled_texts[batch.captions])
        return StepInputs(
            images=torch.from_numpy(train.images[batch.images]).to(device),
            texts=texts.to(device),
            attention_mask=None if attention_mask is None else attention_mask.to(device),
            ids=ids,
            text_ids=ids[image_of],
            image_of=image_of,
            u_image=None if teacher is None else teacher.images[batch.images].to(device).float(),
            u_text=None if teacher is None else teacher.texts[batch.captions].to(device).float(),
        )
