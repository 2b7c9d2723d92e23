"""Batches of images and texts that do not belong together, from materials in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from distilvl.config import TrainingConfig
from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import Share
from distilvl.training.inputs import StepInputs
from distilvl.training.materials import Materials
from distilvl.training.sources.base import BatchSource
from distilvl.training.sources.gathering import Rows, drawn_views, gather_images, gather_texts

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
