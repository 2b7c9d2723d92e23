from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.batches import Batch, PairSampler, Sampling
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
        assert batch.image_of.tolist() == list(range(size))


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


@given(
    st.lists(st.integers(1, 6), min_size=4, max_size=30),
    st.integers(2, 4),
    st.sampled_from(["captions", "captions_in_order"]),
)
def test_the_stream_gives_every_caption_its_turn(counts: list[int], size: int, sampling: Sampling) -> None:
    sampler = PairSampler(counts, size, seed=1, sampling=sampling)
    owner, total = np.repeat(np.arange(len(counts)), counts), sum(counts)
    epochs = -(-2 * total // (sampler.batches_per_epoch * size))
    batches = [batch for number in range(epochs) for batch in sampler.epoch(number)]
    captions = np.concatenate([batch.captions for batch in batches])
    assert sorted(captions[:total].tolist()) == sorted(captions[total : 2 * total].tolist()) == list(range(total))
    for batch in batches:
        assert (owner[batch.captions] == batch.images[batch.image_of]).all()
        assert len(batch.captions) == size
        assert len(set(batch.images.tolist())) == len(batch.images), "an image is encoded once"


def test_in_order_the_captions_of_an_image_are_neighbours_and_shuffled_they_are_not() -> None:
    def first(epoch: int, sampling: Sampling, seed: int = 0) -> Batch:
        return next(PairSampler([5] * 40, 10, seed, sampling).epoch(epoch))

    ordered = first(0, "captions_in_order")
    assert ordered.images.tolist() == [0, 1]
    assert ordered.image_of.tolist() == [0] * 5 + [1] * 5
    assert first(1, "captions_in_order").images.tolist() == [8, 9]
    shuffled = first(0, "captions")
    assert len(shuffled.images) > 5
    assert (shuffled.captions != first(0, "captions", seed=1).captions).any()


@given(st.lists(st.integers(1, 6), min_size=4, max_size=30), st.integers(2, 4), st.integers(1, 7), st.integers(0, 3))
def test_several_captions_of_an_image_are_different_ones(counts: list[int], size: int, take: int, seed: int) -> None:
    owner = np.repeat(np.arange(len(counts)), counts)
    single = PairSampler(counts, size, seed).epoch(1)
    for batch, one in zip(PairSampler(counts, size, seed, captions_a_step=take).epoch(1), single, strict=True):
        assert (batch.images == one.images).all()
        assert set(one.captions.tolist()) <= set(batch.captions.tolist())
        assert len(set(batch.captions.tolist())) == len(batch.captions)
        assert (owner[batch.captions] == batch.images[batch.image_of]).all()
        wanted = [min(take, counts[image]) for image in batch.images]
        assert np.bincount(batch.image_of, minlength=size).tolist() == wanted


def test_each_caption_is_as_likely_as_any_other_whatever_their_number() -> None:
    drawn = [
        int(caption)
        for epoch in range(400)
        for batch in PairSampler([5, 5], 2, seed=0, captions_a_step=2).epoch(epoch)
        for caption in batch.captions
    ]
    assert np.bincount(drawn).min() > 0.8 * 160
    assert np.bincount(drawn).max() < 1.2 * 160
