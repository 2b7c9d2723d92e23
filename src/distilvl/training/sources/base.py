"""What the loop asks of a source of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

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
