"""Which images and captions make up each batch: three orders, each a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError


@dataclass(frozen=True)
class Batch:
    """Rows of one step: `images[i]` is an image's row in the dataset, `captions[i]` a row of all its captions."""

    images: npt.NDArray[np.int64]
    captions: npt.NDArray[np.int64]


Sampling = Literal["distinct_images", "captions", "captions_in_order"]


class PairSampler:
    """Epochs of batches, a pure function of (seed, epoch): a resumed run draws what an undisturbed one draws.

    Every epoch has as many pairs as there are images, less a last batch that would be shorter, which is dropped so
    that all batches offer the losses the same number of negatives.

    Args:
        captions_per_image: number of captions of each image, in order; caption rows count through all of them.
        batch_size: N.
        seed: of the run.
        sampling: `distinct_images`: the images of an epoch, and so of a batch, are distinct, each with a caption
            drawn anew. `captions`: an endless stream of all captions, shuffled anew when all had their turn; an image
            may be twice in a batch. `captions_in_order`: the same stream unshuffled, so that the captions of one
            image are neighbours, as in the published code's loader.

    Raises:
        DistilvlError: fewer images than one batch holds.
    """

    def __init__(
        self,
        captions_per_image: Sequence[int],
        batch_size: int,
        seed: int,
        sampling: Sampling = "distinct_images",
    ) -> None:
        self._counts = np.asarray(captions_per_image, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]]).astype(np.int64)
        self._batch_size, self._seed, self._sampling = batch_size, seed, sampling
        if len(self._counts) < batch_size:
            raise DistilvlError(
                f"{len(self._counts)} training images are fewer than a batch of {batch_size}.",
                f"Use --set training.batch_size={max(2, len(self._counts))} or more images.",
            )

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._counts) // self._batch_size

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        rows = self._distinct_images(number) if self._sampling == "distinct_images" else self._stream(number)
        for step in range(skip, self.batches_per_epoch):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            yield Batch(rows.images[part], rows.captions[part])

    def _distinct_images(self, number: int) -> Batch:
        random = np.random.default_rng((self._seed, number))
        order = random.permutation(len(self._counts))
        drawn = self._starts + random.integers(0, self._counts)
        return Batch(order, drawn[order])

    def _stream(self, number: int) -> Batch:
        pairs = self.batches_per_epoch * self._batch_size
        turns, places = np.divmod(np.arange(number * pairs, (number + 1) * pairs), int(self._counts.sum()))
        captions = np.concatenate([self._turn(turn)[places[turns == turn]] for turn in np.unique(turns)])
        return Batch(np.searchsorted(self._starts, captions, side="right") - 1, captions)

    def _turn(self, number: int) -> npt.NDArray[np.int64]:
        """All caption rows in the order of the stream's turn `number`."""
        total = int(self._counts.sum())
        if self._sampling == "captions_in_order":
            return np.arange(total)
        return np.random.default_rng((self._seed, number)).permutation(total)
