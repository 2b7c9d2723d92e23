"""Which images and captions make up each batch: distinct images, one caption of each, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError


@dataclass(frozen=True)
class Batch:
    """Rows of one step: `images[i]` is an image's row in the dataset, `captions[i]` a row of all its captions."""

    images: npt.NDArray[np.int64]
    captions: npt.NDArray[np.int64]


class PairSampler:
    """Epochs of batches, a pure function of (seed, epoch): a resumed run draws what an undisturbed one draws.

    The images of a batch are distinct. A last batch that would be shorter is dropped, so that all batches offer
    the losses the same number of negatives.

    Args:
        captions_per_image: number of captions of each image, in order; caption rows count through all of them.
        batch_size: N.
        seed: of the run.

    Raises:
        DistilvlError: fewer images than one batch holds.
    """

    def __init__(self, captions_per_image: Sequence[int], batch_size: int, seed: int) -> None:
        self._counts = np.asarray(captions_per_image, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]]).astype(np.int64)
        self._batch_size, self._seed = batch_size, seed
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
        random = np.random.default_rng((self._seed, number))
        order = random.permutation(len(self._counts))
        drawn = self._starts + random.integers(0, self._counts)
        for step in range(skip, self.batches_per_epoch):
            rows = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield Batch(rows, drawn[rows])
