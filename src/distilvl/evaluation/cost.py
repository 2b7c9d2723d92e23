"""What a model costs: parameters, FLOPs and milliseconds an item, measured the same way for teachers and students."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distilvl.errors import DistilvlError
from distilvl.evaluation.encode import ImageTextEncoder
from distilvl.io.inputs import list_of_images, list_of_texts
from distilvl.io.progress import median_ms, time_ms
from distilvl.students.storage import count_parameters
from distilvl.teachers.sentence_transformer import as_text

BATCH = 64
REPEATS, _WARM_UP = 30, 3
_REST = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class SideCost:
    """Cost of one modality."""

    flops: int | None  # of one item; none when PyTorch saw no operation it can count
    ms_one: float  # milliseconds an item at batch 1
    ms_batch: float  # milliseconds an item at batch 64


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs; `parameters` is none for a teacher that does not tell."""

    parameters: int | None
    image: SideCost
    text: SideCost


def measure_cost(
    encoder: ImageTextEncoder, images: Sequence[Image.Image], captions: Sequence[str], *, repeats: int = 5
) -> Cost:
    """Parameters, FLOPs (of the first item) and median time of `encoder`; a student's in a `StudentEncoder`.

    Each figure is of `repeats` calls, after one that is not timed. The images are decoded, RGB; fewer than 64 items are
    repeated to fill a batch. `DistilvlError` for no image, no caption, or no repeat.
    """
    if not images or not captions or repeats < 1:
        raise DistilvlError("a cost needs at least one image, one caption and one repeat.", "Give more.")
    image, text = _side(encoder.encode_images, images, repeats), _side(encoder.encode_texts, captions, repeats)
    return Cost(getattr(encoder, "num_parameters", None), image, text)


def milliseconds(
    encoders: Mapping[str, ImageTextEncoder], pictures: Sequence[Image.Image], captions: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Median time of one picture and of one caption; the encoders take turns, so that other load hits all alike.

    Each turn begins with a rest and a call that is not timed: threads of the one before wait busily for a while, which
    makes the next one up to twice as slow.
    """
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in encoders}
    for k in range(_WARM_UP + REPEATS):
        for name, encoder in encoders.items():
            picture, caption = pictures[k % len(pictures)], captions[k % len(captions)]
            time.sleep(_REST)
            encoder.encode_images([picture])
            times[name][0].append(time_ms(partial(encoder.encode_images, [picture])))
            times[name][1].append(time_ms(partial(encoder.encode_texts, [caption])))
    median = statistics.median
    return {name: (median(image[_WARM_UP:]), median(text[_WARM_UP:])) for name, (image, text) in times.items()}


class StudentEncoder:
    """A student behind the same two calls as a teacher, through its public `encode`."""

    def __init__(self, student: SentenceTransformer) -> None:
        self._student = student
        self.num_parameters = count_parameters(student)

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to embeddings, shape (n, D)."""
        return self._encode(list_of_images(images))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to embeddings, shape (n, D)."""
        return self._encode([as_text(text) for text in list_of_texts(texts)])

    def _encode(self, items: list[Any]) -> npt.NDArray[Any]:
        return np.asarray(self._student.encode(items, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False))


def _side(encode: Callable[[Sequence[Any]], npt.NDArray[Any]], items: Sequence[Any], repeats: int) -> SideCost:
    singles = [[items[k % len(items)]] for k in range(repeats + 1)]
    full = [items[k % len(items)] for k in range(BATCH)]
    # The counter does not know the fused attention of CPUs; the plain one is made of products that it does know.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encode([items[0]])
    flops = counter.get_total_flops() or None
    return SideCost(flops, median_ms(encode, singles), median_ms(encode, [full] * (repeats + 1)) / BATCH)
