from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.training.sources import EXTRA_IDS, AlternatingSource, StepInputs


class _Numbers:
    """Batches of one row whose id says the epoch and the step."""

    def __init__(self, batches_per_epoch: int) -> None:
        self.batches_per_epoch = batches_per_epoch

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        for step in range(skip, self.batches_per_epoch):
            ids = torch.tensor([number * self.batches_per_epoch + step])
            rows = torch.zeros(1, 2)
            yield StepInputs(rows, rows, None, ids, ids, None, None, None)


def _ids(batches: Iterator[StepInputs]) -> list[int]:
    return [int(batch.ids) for batch in batches]


SOURCES = st.builds(
    lambda main, extra, share: AlternatingSource(_Numbers(main), _Numbers(extra), share),
    st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.9),
)  # fmt: skip


@given(SOURCES)
def test_both_are_gone_through_in_order_whatever_their_lengths(source: AlternatingSource) -> None:
    ids = [one for epoch in range(3) for one in _ids(source.epoch(epoch))]
    main, extra = [one for one in ids if one < EXTRA_IDS], [one - EXTRA_IDS for one in ids if one >= EXTRA_IDS]
    assert len(ids) == 3 * source.batches_per_epoch
    assert main == list(range(3 * source.main.batches_per_epoch))
    assert extra == list(range(len(extra)))


@given(SOURCES, st.integers(0, 3), st.data())
def test_an_epoch_continues_where_it_was_left(source: AlternatingSource, epoch: int, data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, source.batches_per_epoch))
    assert _ids(source.epoch(epoch, skip=skip)) == _ids(islice(source.epoch(epoch), skip, None))


@pytest.mark.parametrize(("share", "order"), [(0.5, "emem" * 3), (0.25, "mmme" * 2), (1 / 7, "mmmmmme")])
def test_extra_steps_lie_evenly_between_the_others(share: float, order: str) -> None:
    source = AlternatingSource(_Numbers(order.count("m")), _Numbers(3), share)
    found = "".join("e" if one >= EXTRA_IDS else "m" for one in _ids(source.epoch(0)))
    assert sorted(found) == sorted(order)
    gaps = [len(run) for run in found.split("e")[:-1]]
    assert max(gaps) - min(gaps) <= 1
