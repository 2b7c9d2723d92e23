"""Parameters, FLOPs and milliseconds an item of a model, measured the same way for teachers and students."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distilvl.errors import DistilvlError
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.students.storage import count_parameters
from distilvl.teachers.sentence_transformer import as_text

BATCH = 64


class Encoder(Protocol):
    """What is timed: any `Teacher`, or a `StudentEncoder`."""

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to rows, shape (n, D)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to rows, shape (n, D)."""


class StudentEncoder:
    """A student behind the same two calls as a teacher, through its public `encode`."""

    def __init__(self, student: SentenceTransformer) -> None:
        self._student = student
        self.num_parameters = count_parameters(student)

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to rows, shape (n, D)."""
        return self._encode(list_of_images(images))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to rows, shape (n, D)."""
        return self._encode([as_text(text) for text in list_of_texts(texts)])

    def _encode(self, items: list[Any]) -> npt.NDArray[Any]:
        rows = self._student.encode(items, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(rows)


@dataclass(frozen=True, slots=True)
class SideCost:
    """Cost of one modality.

    Attributes:
        flops: of one item; none when PyTorch saw no operation it can count.
        ms_one: milliseconds an item at batch 1.
        ms_batch: milliseconds an item at batch 64.
    """

    flops: int | None
    ms_one: float
    ms_batch: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs; `parameters` is none for a teacher that does not tell."""

    parameters: int | None
    image: SideCost
    text: SideCost


def measure_cost(encoder: Encoder, images: Sequence[Image.Image], captions: Sequence[str], *, repeats: int = 5) -> Cost:
    """Parameters, FLOPs and time of `encoder`, end to end.

    Args:
        encoder: a teacher, or a student in a `StudentEncoder`.
        images: decoded RGB images; fewer than 64 are repeated to fill a batch. FLOPs are of the first.
        captions: likewise.
        repeats: timed calls for each figure, after one that is not timed.

    Raises:
        DistilvlError: no image, no caption, or no repeat.
    """
    if not images or not captions or repeats < 1:
        raise DistilvlError("a cost needs at least one image, one caption and one repeat.", "Give more.")
    return Cost(
        parameters=getattr(encoder, "num_parameters", None),
        image=_side(encoder.encode_images, images, repeats),
        text=_side(encoder.encode_texts, captions, repeats),
    )


def _side(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], items: Sequence[Any], repeats: int) -> SideCost:
    singles = [[items[k % len(items)]] for k in range(repeats + 1)]
    full = [items[k % len(items)] for k in range(BATCH)]
    return SideCost(
        flops=_flops(encode, items[0]),
        ms_one=_milliseconds(encode, singles),
        ms_batch=_milliseconds(encode, [full] * (repeats + 1)) / BATCH,
    )


def _flops(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], item: Any) -> int | None:
    # The counter does not know the fused attention of CPUs; the plain one is made of products that it does know.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encode([item])
    return counter.get_total_flops() or None


def _milliseconds(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], batches: Sequence[Sequence[Any]]) -> float:
    """Median time of all batches but the first, which warms up."""
    times = []
    for batch in batches:
        _synchronise()
        started = time.perf_counter()
        encode(batch)
        _synchronise()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[1:])


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
