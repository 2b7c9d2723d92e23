from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.shards import EpochOrder, ShardSplit, open_split
from distilvl.data.shards.tar import Member, Sample
from distilvl.errors import DistilvlError


class Numbered(ShardSplit):
    """Shards that are made up: the key of a sample says where it is from."""

    def read(self, shard: int, start: int, stop: int):
        for row in range(start, stop):
            yield Sample(f"{shard}", f"{shard}/{row}", Member("", 0, 0), {})


def numbered(counts: tuple[int, ...], lanes: int, buffer: int) -> Numbered:
    return Numbered("numbers", tuple(Path(f"{k}") for k in range(len(counts))), counts, 0, lanes, buffer)


def drawn(order: EpochOrder, epoch: int, batches: range) -> list[list[str]]:
    return [[sample.key for sample in samples] for samples in order.epoch(epoch, batches)]


@st.composite
def orders(draw: st.DrawFn) -> tuple[Numbered, int, int]:
    nodes = draw(st.integers(1, 4))
    counts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=8))
    batch_size = draw(st.integers(2 * nodes, 20))
    counts[0] += max(0, batch_size - sum(counts))
    split = numbered(tuple(counts), draw(st.integers(1, 6)), draw(st.integers(1, 40)))
    return split, batch_size, nodes


@given(orders(), st.integers(0, 3))
def test_every_record_once_an_epoch_whatever_the_numbers_of_nodes_and_workers(case, epoch: int):
    split, batch_size, nodes = case
    seen: list[str] = []
    batches: list[list[str]] = []
    for node in range(nodes):
        order = EpochOrder(split, batch_size, 7, node=node, nodes=nodes)
        alone = drawn(order, epoch, range(order.batches))
        seen += chain.from_iterable(alone)
        batches = alone if not batches else [a + b for a, b in zip(batches, alone, strict=True)]
        for workers in (k for k in range(1, split.lanes + 1) if split.lanes % k == 0):
            together: dict[int, list[str]] = {}
            for worker in range(workers):
                own = range(worker, order.batches, workers)
                together.update(zip(own, drawn(order, epoch, own), strict=True))
            assert [together[k] for k in range(order.batches)] == alone
    assert sorted(seen) == sorted(f"{shard}/{row}" for shard, count in enumerate(split.counts) for row in range(count))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2 * nodes
    assert max(sizes) <= batch_size or batch_size < 4 * nodes
    assert max(sizes) - min(sizes) <= 1


@given(orders(), st.integers(0, 3), st.integers(0, 30))
def test_from_any_batch_on_an_epoch_goes_on_as_if_undisturbed(case, epoch: int, skip: int):
    split, batch_size, nodes = case
    order = EpochOrder(split, batch_size, 7, node=nodes - 1, nodes=nodes)
    whole = drawn(order, epoch, range(order.batches))
    assert drawn(order, epoch, range(min(skip, order.batches), order.batches)) == whole[skip:]


def test_epochs_and_seeds_differ():
    split = numbered((50, 50, 50, 50), 2, 32)
    order = EpochOrder(split, 10, 7)
    assert drawn(order, 0, range(20)) != drawn(order, 1, range(20))
    assert drawn(order, 0, range(20)) != drawn(EpochOrder(split, 10, 8), 0, range(20))
    assert drawn(order, 0, range(20)) == drawn(EpochOrder(split, 10, 7), 0, range(20))


def test_records_of_several_shards_and_places_meet_in_a_batch():
    order = EpochOrder(numbered((100,) * 8, 2, 200), 20, 0)
    batches = drawn(order, 0, range(order.batches))
    assert all(len({key.split("/")[0] for key in batch}) > 1 for batch in batches)
    assert [int(key.split("/")[1]) for key in batches[0]] != sorted(int(key.split("/")[1]) for key in batches[0])


def test_no_more_than_the_buffer_is_ever_held():
    held = most = 0

    class Counting(Numbered):
        def read(self, shard: int, start: int, stop: int):
            nonlocal held, most
            for sample in super().read(shard, start, stop):
                held += 1
                most = max(most, held)
                yield sample

    order = EpochOrder(Counting("n", (Path("0"), Path("1")), (500, 500), 0, 1, 64), 10, 0)
    for samples in order.epoch(0, range(order.batches)):
        held -= len(samples)
    assert (held, most) == (0, 64 + 10)


def test_resuming_passes_over_whole_shards(shards: Path, monkeypatch: pytest.MonkeyPatch):
    split = open_split(f"webdataset:{shards}?lanes=1&buffer=2", "train")
    order = EpochOrder(split, 2, 0)
    read: list[tuple[int, int, int]] = []
    reading = ShardSplit.read
    monkeypatch.setattr(ShardSplit, "read", lambda self, *where: read.append(where) or reading(self, *where))
    assert len(drawn(order, 0, range(order.batches - 1, order.batches))) == 1
    assert len(read) == 1
    assert read[0][2] - read[0][1] <= 2


@pytest.mark.parametrize(("batch_size", "nodes"), [(15, 1), (6, 4)])
def test_too_few_records(batch_size: int, nodes: int):
    with pytest.raises(DistilvlError, match=f"14 records of numbers do not make a batch of {batch_size}"):
        EpochOrder(numbered((5, 9), 1, 8), batch_size, 0, nodes=nodes)


def test_a_shard_that_lost_records_is_named(shards: Path, picture: Callable[[int], bytes], write_tar):
    split = open_split(f"webdataset:{shards}", "train")
    write_tar(shards / "train-2.tar", {"1.png": picture(0), "1.txt": b"one"})
    order = EpochOrder(split, 2, 0)
    with pytest.raises(DistilvlError, match=r"train-2\.tar had 9 records when they were counted, now 1"):
        drawn(order, 0, range(order.batches))
