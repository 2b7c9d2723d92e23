from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.batches import PairSampler
from distilvl.errors import DistilvlError


@given(st.lists(st.integers(1, 6), min_size=4, max_size=60), st.integers(2, 4), st.integers(0, 3), st.integers(0, 5))
def test_batches_hold_distinct_images_and_own_captions(counts: list[int], size: int, seed: int, epoch: int) -> None:
    sampler = PairSampler(counts, size, seed)
    owner = np.repeat(np.arange(len(counts)), counts)
    batches = list(sampler.epoch(epoch))
    assert len(batches) == sampler.batches_per_epoch == len(counts) // size
    images = np.concatenate([batch.images for batch in batches])
    assert len(set(images.tolist())) == len(images)
    for batch in batches:
        assert len(batch.images) == size
        assert (owner[batch.captions] == batch.images).all()


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    whole = list(PairSampler([5] * 40, 8, seed=3).epoch(2))
    rest = list(PairSampler([5] * 40, 8, seed=3).epoch(2, skip=2))
    assert all((a.captions == b.captions).all() for a, b in zip(whole[2:], rest, strict=True))
    assert not (whole[0].images == next(PairSampler([5] * 40, 8, seed=3).epoch(3)).images).all()
    assert not (whole[0].images == next(PairSampler([5] * 40, 8, seed=4).epoch(2)).images).all()


def test_all_captions_of_an_image_are_drawn_sooner_or_later() -> None:
    sampler = PairSampler([5, 1, 3], 3, seed=0)
    seen = {int(row) for epoch in range(60) for batch in sampler.epoch(epoch) for row in batch.captions}
    assert seen == set(range(9))


def test_fewer_images_than_a_batch_is_refused() -> None:
    with pytest.raises(DistilvlError, match="batch_size=3"):
        PairSampler([5, 5, 5], 64, seed=0)
