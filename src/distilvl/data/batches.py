"""Which images and captions make up each batch: three orders, each a pure function of the seed and the epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError


@dataclass(frozen=True)
class Batch:
    """Rows of one step. Each image is there once, however many of its captions are, so that it is encoded once."""

    images: npt.NDArray[np.int64]  # rows of distinct images in the dataset, (B,)
    captions: npt.NDArray[np.int64]  # rows among all captions, (N,); N pairs
    image_of: npt.NDArray[np.int64]  # position in `images` of each caption's image, (N,)
    crops: npt.NDArray[np.int64] | None = None  # which of its crops stands for each image, (B,); None: the whole one
    mirrored: npt.NDArray[np.bool_] | None = None  # whether its mirror image stands for it, (B,); None: never


Sampling = Literal["distinct_images", "captions", "captions_in_order"]


class PairSampler:
    """Epochs of batches, a pure function of (seed, epoch): a resumed run draws what an undisturbed one draws.

    An epoch offers as many images (`distinct_images`) or pairs (the other two) as there are images, less a last batch
    that would be shorter, which is dropped so that all batches offer the losses the same number of negatives.

    Args:
        captions_per_image: number of captions of each image, in order; caption rows count through all of them.
        batch_size: images of a batch with `distinct_images`, pairs otherwise.
        sampling: `distinct_images`: the images of an epoch are distinct, each with captions drawn anew. `captions`: an
            endless stream of all captions, shuffled anew when all had their turn; an image may be twice in a batch.
            `captions_in_order`: the same stream unshuffled, as in the published code's loader.
        captions_a_step: with `distinct_images`, how many different captions of each image are drawn, if it has them.
    """

    def __init__(
        self, captions_per_image: Sequence[int], batch_size: int, seed: int,
        sampling: Sampling = "distinct_images", captions_a_step: int = 1,
    ) -> None:  # fmt: skip
        self._counts = np.asarray(captions_per_image, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]]).astype(np.int64)
        self._batch_size, self._seed, self._sampling = batch_size, seed, sampling
        self._take = np.minimum(captions_a_step, self._counts)
        if len(self._counts) < batch_size:
            remedy = f"Use --set training.batch_size={max(2, len(self._counts))} or more images."
            raise DistilvlError(f"{len(self._counts)} training images are fewer than a batch of {batch_size}.", remedy)

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return len(self._counts) // self._batch_size

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[Batch]:
        """Batches of epoch `number` (from 0), without the first `skip`."""
        batch = self._distinct_images(number) if self._sampling == "distinct_images" else self._stream(number)
        for step in range(skip, self.batches_per_epoch):
            yield batch(slice(step * self._batch_size, (step + 1) * self._batch_size))

    def _distinct_images(self, number: int) -> Callable[[slice], Batch]:
        random = np.random.default_rng((self._seed, number))
        order = random.permutation(len(self._counts))
        first = random.integers(0, self._counts)

        def batch(part: slice) -> Batch:
            images = order[part]
            take = self._take[images]
            image_of = np.repeat(np.arange(len(images)), take)
            # The next ones after the first, in a circle: different ones, and each as likely as any other.
            following = np.arange(len(image_of)) - np.repeat(np.cumsum(take) - take, take)
            row = images[image_of]
            return Batch(images, self._starts[row] + (first[row] + following) % self._counts[row], image_of)

        return batch

    def _stream(self, number: int) -> Callable[[slice], Batch]:
        pairs = self.batches_per_epoch * self._batch_size
        turns, places = np.divmod(np.arange(number * pairs, (number + 1) * pairs), int(self._counts.sum()))
        captions = np.concatenate([self._turn(turn)[places[turns == turn]] for turn in np.unique(turns)])
        owner = np.searchsorted(self._starts, captions, side="right") - 1

        def batch(part: slice) -> Batch:
            images, image_of = np.unique(owner[part], return_inverse=True)
            return Batch(images, captions[part], image_of)

        return batch

    def _turn(self, number: int) -> npt.NDArray[np.int64]:
        """All caption rows in the order of the stream's turn `number`."""
        total = int(self._counts.sum())
        if self._sampling == "captions_in_order":
            return np.arange(total)
        return np.random.default_rng((self._seed, number)).permutation(total)
