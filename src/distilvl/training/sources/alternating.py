"""Batches of one source with those of another between them: data beside the data that is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from distilvl.training.inputs import StepInputs
from distilvl.training.sources.base import BatchSource

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
