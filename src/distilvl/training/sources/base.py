"""What the loop asks of a source of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from distilvl.training.inputs import StepInputs


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
