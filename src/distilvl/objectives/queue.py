"""The queue `q^m` of teacher features: the last K_q of one modality, first in, first out."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from distilvl.objectives.registry import Settings

EMPTY = -1  # the image id of a slot that holds nothing yet

NO_IMAGE = 2**62
"""The image id of a feature that belongs to no image at all, such as a random vector: a negative of every embedding."""

QueueStart = Literal["stored", "empty", "random"]


class QueueSettings(Settings):
    """The queues; they stand in the section of CD, whichever of the losses that read them are chosen."""

    queue: int = Field(8192, ge=0, description="K_q, teacher features of each modality")
    start: QueueStart = Field(
        "stored", description="the queue before the first step: drawn from the store, empty, or random unit vectors"
    )


class Negatives(Protocol):
    """What a loss reads of a queue: features (K, D) and their image ids (K,) int64, `EMPTY` for none."""

    features: Tensor
    ids: Tensor


@dataclass(eq=False)
class QueueView:
    """Contents of a queue, for instance the first columns of its features."""

    features: Tensor
    ids: Tensor


NO_QUEUE = QueueView(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64))  # a queue without slots


class TeacherQueue(nn.Module):
    """A ring of `size` teacher features with the ids of their images, empty at first; `state_dict()` carries them.

    `size` is K_q >= 0, the number of slots, which batches need not divide; `dim` is D, the embedding dimension.
    """

    features: Tensor  # (size, dim) float32, in the order of the ring and not of age
    ids: Tensor  # (size,) int64, `EMPTY` where a slot was never written
    pointer: Tensor  # 0-d int64, the slot that is written next

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), EMPTY, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, features: Tensor, ids: Tensor) -> None:
        """Write features (n, dim) of images `ids` (n,) over the oldest ones; of more than `size` the last ones stay."""
        size = len(self.ids)
        if size == 0 or len(ids) == 0:
            return
        features, ids = features[-size:], ids[-size:]
        slots = (self.pointer + torch.arange(len(ids), device=self.pointer.device)) % size
        self.features[slots] = features.to(self.features)
        self.ids[slots] = ids.to(self.ids)
        self.pointer.copy_((self.pointer + len(ids)) % size)
