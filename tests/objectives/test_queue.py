from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from distilvl.objectives import EMPTY, TeacherQueue


def numbered(start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and ids that both say which item they are."""
    ids = torch.arange(start, start + count)
    return ids[:, None].repeat(1, 3).double(), ids


def test_starts_empty():
    queue = TeacherQueue(4, 3)
    assert int((queue.ids != EMPTY).sum()) == 0
    assert queue.ids.tolist() == [EMPTY] * 4


@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 20), max_size=8))
def test_holds_the_newest_whatever_the_batch_sizes(size, batches):
    queue, seen = TeacherQueue(size, 3), 0
    for count in batches:
        queue.enqueue(*numbered(seen, count))
        seen += count
    newest = list(range(max(0, seen - size), seen))
    assert int((queue.ids != EMPTY).sum()) == len(newest)
    assert sorted(queue.ids[queue.ids != EMPTY].tolist()) == newest
    held = queue.ids != EMPTY
    assert torch.equal(queue.features[held][:, 0], queue.ids[held].float())


@given(size=st.integers(1, 9), first=st.integers(0, 20), second=st.integers(1, 20))
def test_state_dict_continues_exactly(size, first, second):
    queue, resumed = TeacherQueue(size, 3), TeacherQueue(size, 3)
    queue.enqueue(*numbered(0, first))
    resumed.load_state_dict(queue.state_dict())
    for one in (queue, resumed):
        one.enqueue(*numbered(first, second))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_keeps_no_gradient_and_float32():
    queue = TeacherQueue(4, 3)
    queue.enqueue(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), torch.tensor([0, 1]))
    assert queue.features.dtype == torch.float32
    assert not queue.features.requires_grad
    assert list(queue.parameters()) == []


def test_size_zero_holds_nothing():
    queue = TeacherQueue(0, 3)
    queue.enqueue(*numbered(0, 5))
    assert int((queue.ids != EMPTY).sum()) == 0
