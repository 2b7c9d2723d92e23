from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from distilvl.errors import DistilvlError
from distilvl.io.prefetch import prefetched
from distilvl.teachers.base import Teacher
from distilvl.teachers.torch_teacher import Inputs, RunOptions, TorchTeacher


class Lengths(TorchTeacher):
    """A text's row is (its length, 0, 0), an image's its mean colour; it notes the sizes of its batches."""

    preprocessing = "none"

    def __init__(self, batch_size: int = 4, dtype: str | None = None) -> None:
        self.sizes: list[int] = []
        super().__init__(nn.Linear(3, 3), "lengths", "1", RunOptions("cpu", dtype, batch_size))
        self.sizes.clear()

    def prepare_images(self, images: Sequence[Image.Image]) -> Inputs:
        return {"x": torch.tensor([np.asarray(image, dtype=np.float32).mean((0, 1)).tolist() for image in images])}

    def prepare_texts(self, texts: Sequence[str]) -> Inputs:
        return {"x": torch.tensor([[float(len(text)), 0, 0] for text in texts]), "count": torch.tensor([len(texts)])}

    def image_features(self, inputs: Inputs) -> Tensor:
        assert not torch.is_grad_enabled()
        self.sizes.append(len(inputs["x"]))
        return inputs["x"]

    text_features = image_features


@given(st.lists(st.text(max_size=9), max_size=20), st.integers(1, 6))
def test_rows_are_in_order_and_batches_full(texts: list[str], size: int):
    teacher = Lengths(size)
    rows = teacher.encode_texts(texts)
    assert rows[:, 0].tolist() == [len(text) for text in texts]
    assert rows.shape == (len(texts), 3)
    assert rows.dtype == np.float32
    assert all(asked == size for asked in teacher.sizes[:-1])
    assert sum(teacher.sizes) == len(texts)


def test_images_of_any_mode_become_rgb():
    teacher = Lengths()
    assert isinstance(teacher, Teacher)
    images = [Image.new("L", (2, 2), 9), Image.new("RGBA", (3, 1), (1, 2, 3, 255)), Image.new("RGB", (1, 1), (7, 8, 9))]
    assert teacher.encode_images(images).tolist() == [[9, 9, 9], [1, 2, 3], [7, 8, 9]]


def test_only_numbers_with_a_point_change_their_format():
    teacher = Lengths(dtype="bfloat16")
    moved = teacher.to_device(teacher.prepare_texts(["abc"]))
    assert (moved["x"].dtype, moved["count"].dtype) == (torch.bfloat16, torch.int64)
    assert teacher.revision == "1-bfloat16"
    assert teacher.encode_texts(["abc"]).dtype == np.float32


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch):
    teacher = Lengths(8)

    def full(inputs: Inputs) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(teacher, "text_features", full)
    with pytest.raises(DistilvlError, match=r"batches of 8\. Append \?batch_size=4"):
        teacher.encode_texts(["a"])


def test_the_next_batch_is_prepared_while_one_is_out():
    begun = [threading.Event() for _ in range(4)]

    def prepare(batch: Sequence[int]) -> Inputs:
        begun[batch[0]].set()
        return {"x": torch.tensor(batch)}

    batches = prefetched(prepare, [[0], [1], [2], [3]], workers=1, window=2)
    assert next(batches)["x"].tolist() == [0]
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert [inputs["x"].item() for inputs in batches] == [1, 2, 3]


def test_an_error_while_preparing_is_raised():
    def prepare(batch: Sequence[int]) -> Inputs:
        raise ValueError("unfit")

    with pytest.raises(ValueError, match="unfit"):
        list(prefetched(prepare, [[0], [1]], workers=2, window=3))
