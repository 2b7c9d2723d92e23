from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.models.encoder import Encoder
from distilvl.serving.batcher import BatchedEncoder, Batcher, UnencodableError


class Lengths:
    """A text's row says how long it is; a picture's, how wide."""

    name, revision, dim = "lengths", "1", 2

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(list(texts))
        assert self.gate.wait(10)
        if any(text.startswith("bad") for text in texts):
            raise RuntimeError("no")
        return np.array([[len(text) + 1.0, 1.0] for text in texts])

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.batches.append([image.width for image in images])
        return np.array([[image.width, 1.0] for image in images])


Make = Callable[..., tuple[Lengths, Batcher]]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[Lengths, Batcher]] = []

    def start(max_batch: int = 8, max_wait: float = 0.02) -> tuple[Lengths, Batcher]:
        model = Lengths()
        made.append((model, Batcher(Encoder(model), max_batch, max_wait, lambda *_: None)))
        return made[-1]

    yield start
    for model, batcher in made:
        model.gate.set()
        batcher.close()


def lengths(future: Future[Any]) -> list[int]:
    rows = future.result(10)
    return [round(row[0] / row[1]) - 1 for row in rows]


def test_what_comes_together_is_encoded_together_and_sorted_back(make: Make) -> None:
    model, batcher = make(max_batch=8, max_wait=0.3)
    futures = [batcher.submit("text", ["x" * (3 * k), "x" * (3 * k + 1)]) for k in range(4)]
    assert [lengths(future) for future in futures] == [[3 * k, 3 * k + 1] for k in range(4)]
    assert [len(batch) for batch in model.batches] == [8]


def test_a_full_batch_does_not_wait(make: Make) -> None:
    _, batcher = make(max_batch=2, max_wait=60)
    assert lengths(batcher.submit("text", ["a", "bb"])) == [1, 2]


def test_a_lone_item_waits_no_longer_than_told(make: Make) -> None:
    _, batcher = make(max_wait=0.1)
    start = time.monotonic()
    assert lengths(batcher.submit("text", ["abc"])) == [3]
    assert time.monotonic() - start >= 0.1


def test_more_than_a_batch_holds_is_split(make: Make) -> None:
    model, batcher = make(max_batch=3)
    assert lengths(batcher.submit("text", ["x" * k for k in range(10)])) == list(range(10))
    assert all(len(batch) <= 3 for batch in model.batches)


def test_texts_and_pictures_are_never_mixed(make: Make) -> None:
    model, batcher = make()
    picture = batcher.submit("image", [Image.new("RGB", (5, 2))])
    text = batcher.submit("text", ["abc"])
    assert lengths(text) == [3]
    assert picture.result(10)[0, 0] / picture.result(10)[0, 1] == pytest.approx(5)
    assert len(model.batches) == 2


def test_one_item_does_not_wait_behind_hundreds_of_another_submission(make: Make) -> None:
    model, batcher = make(max_batch=4)
    model.gate.clear()
    many = batcher.submit("text", ["xx"] * 200)
    while not model.batches:
        time.sleep(0.001)
    one = batcher.submit("text", ["x" * 7])
    model.gate.set()
    assert lengths(one) == [7]
    assert lengths(many) == [2] * 200
    assert [len(text) for text in model.batches[1]].count(7) == 1


def test_pictures_and_texts_take_turns(make: Make) -> None:
    model, batcher = make(max_batch=2)
    model.gate.clear()
    texts = batcher.submit("text", ["a"] * 20)
    while not model.batches:
        time.sleep(0.001)
    picture = batcher.submit("image", [Image.new("RGB", (5, 2))] * 2)
    model.gate.set()
    assert lengths(picture) == [4, 4]
    assert len(texts.result(10)) == 20
    assert model.batches[1] == [5, 5]


def test_a_large_picture_is_the_last_one_of_a_batch(make: Make) -> None:
    model, batcher = make(max_batch=8, max_wait=0.3)
    sizes = [(10, 10), (4096, 4096), (20, 10), (4097, 4096), (4098, 4096)]
    batcher.submit("image", [Image.new("1", size) for size in sizes]).result(10)
    assert model.batches == [[10, 4096], [20, 4097], [4098]]


def test_a_tokenizer_gets_no_more_of_a_text_than_its_model_can_read() -> None:
    model = Lengths()
    model.max_length = 3  # type: ignore[attr-defined]
    batcher = Batcher(Encoder(model), 4, 0.001, lambda *_: None)
    try:
        assert lengths(batcher.submit("text", ["x" * 100_000, "x" * 100])) == [3 * 64, 100]
    finally:
        batcher.close()


def test_only_the_submission_with_the_bad_item_fails(make: Make) -> None:
    model, batcher = make(max_batch=16, max_wait=0.2)
    good = [batcher.submit("text", ["a" * k, "b"]) for k in range(3)]
    bad = batcher.submit("text", ["fine", "bad one", "fine too"])
    more = batcher.submit("text", ["last"])
    with pytest.raises(UnencodableError) as caught:
        bad.result(10)
    assert caught.value.position == 1
    assert [lengths(future) for future in good] == [[0, 1], [1, 1], [2, 1]]
    assert lengths(more) == [4]
    assert len(model.batches[0]) == 10


def test_what_nobody_waits_for_is_not_encoded(make: Make) -> None:
    model, batcher = make(max_batch=1)
    model.gate.clear()
    first = batcher.submit("text", ["held"])
    while not model.batches:
        time.sleep(0.001)
    dropped = batcher.submit("text", ["dropped"])
    kept = batcher.submit("text", ["kept"])
    assert dropped.cancel()
    model.gate.set()
    assert (lengths(first), lengths(kept)) == ([4], [4])
    assert ["dropped"] not in model.batches


def test_what_is_given_up_does_not_pile_up_behind_a_model_that_hangs(make: Make) -> None:
    model, batcher = make(max_batch=1)
    model.gate.clear()
    batcher.submit("text", ["held"])
    while not model.batches:
        time.sleep(0.001)
    pictures = [submit_and_leave(batcher) for _ in range(20)]
    batcher.submit("text", ["next"])
    gc.collect()
    assert sum(picture() is not None for picture in pictures) <= 1


def submit_and_leave(batcher: Batcher) -> weakref.ref[Image.Image]:
    image = Image.new("RGB", (2, 2))
    batcher.submit("image", [image]).cancel()
    return weakref.ref(image)


def test_a_cancelled_submission_in_the_running_batch_harms_nobody(make: Make) -> None:
    model, batcher = make(max_batch=2, max_wait=60)
    model.gate.clear()
    left, stays = batcher.submit("text", ["left"]), batcher.submit("text", ["stays"])
    while not model.batches:
        time.sleep(0.001)
    assert left.cancel()
    model.gate.set()
    assert lengths(stays) == [5]


def test_close_finishes_what_is_there_and_takes_no_more(make: Make) -> None:
    model, batcher = make(max_wait=60)
    future = batcher.submit("text", ["abc"])
    batcher.close()
    assert lengths(future) == [3]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("text", ["late"])
    assert len(model.batches) == 1


def test_nothing_submitted_is_nothing_returned(make: Make) -> None:
    model, batcher = make()
    assert batcher.submit("text", []).result(1).shape == (0, 2)
    assert model.batches == []


def test_rows_that_cannot_be_are_refused(make: Make) -> None:
    model, batcher = make()
    model.encode_images = lambda images: np.full((len(images), 2), np.nan)  # type: ignore[method-assign]
    with pytest.raises(UnencodableError):
        batcher.submit("image", [Image.new("RGB", (2, 2))]).result(10)


def test_an_index_asks_through_the_same_worker(make: Make) -> None:
    model, batcher = make(max_batch=2, max_wait=60)
    encoder = BatchedEncoder(Encoder(model), batcher)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda t=t: found.append(encoder.encode_texts([t]))) for t in ("a", "bb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(round(rows[0, 0] / rows[0, 1]) for rows in found) == [2, 3]
    assert len(model.batches) == 1


@given(
    sizes=st.lists(st.integers(0, 7), max_size=12),
    max_batch=st.integers(1, 6),
    bad=st.sets(st.integers(0, 11), max_size=3),
)
def test_every_submission_gets_its_own_rows(sizes: list[int], max_batch: int, bad: set[int]) -> None:
    batcher = Batcher(Encoder(Lengths()), max_batch, 0.001, lambda *_: None)
    try:
        asked = [["x" * (10 * k + j) for j in range(size)] for k, size in enumerate(sizes)]
        for k in bad & set(range(len(asked))):
            asked[k].append("bad")
        futures = [batcher.submit("text", texts) for texts in asked]
        for k, (texts, future) in enumerate(zip(asked, futures, strict=True)):
            if k in bad:
                with pytest.raises(UnencodableError) as caught:
                    future.result(10)
                assert caught.value.position == len(texts) - 1
            else:
                assert lengths(future) == [len(text) for text in texts]
    finally:
        batcher.close()
