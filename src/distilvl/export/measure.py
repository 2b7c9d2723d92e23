"""What an export costs and loses: RSUM of several encoders on the same pictures, and milliseconds for one item."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset
from distilvl.evaluation.encode import encode_dataset
from distilvl.evaluation.score import score
from distilvl.experiments.cost import Encoder
from distilvl.lists import list_of_images, list_of_texts

REPEATS = 30
_WARM_UP = 3


class _SideBySide:
    """Several encoders as one, their columns side by side: each picture is decoded once for all of them."""

    revision = ""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        self._encoders = encoders
        self.name = " ".join(encoders)
        self.dim = 0
        self.columns: dict[str, slice] = {}

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        listed = list_of_images(images)
        return self._joined([encoder.encode_images(listed) for encoder in self._encoders.values()])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        listed = list_of_texts(texts)
        return self._joined([encoder.encode_texts(listed) for encoder in self._encoders.values()])

    def _joined(self, blocks: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        ends = np.cumsum([block.shape[1] for block in blocks])
        for name, end, block in zip(self._encoders, ends, blocks, strict=True):
            self.columns[name] = slice(int(end) - block.shape[1], int(end))
        self.dim = int(ends[-1])
        return np.concatenate(blocks, axis=1)


def rsums(
    encoders: Mapping[str, Encoder], gallery: PairDataset, *, skip_bad: bool = False
) -> tuple[dict[str, float], LeftOut]:
    """RSUM (0 to 600) of each encoder on one split, and what was left out of it.

    Raises:
        DistilvlError: bad images, unless `skip_bad`; features that cannot be scored.
    """
    together = _SideBySide(encoders)
    encoded = encode_dataset(together, gallery, skip_bad=skip_bad)
    owner, groups = encoded.dataset.caption_image, encoded.groups
    scores = {
        name: score(encoded.images[:, columns], encoded.texts[:, columns], owner, groups).rsum
        for name, columns in together.columns.items()
    }
    return scores, encoded.left_out


def milliseconds(
    encoders: Mapping[str, Encoder], pictures: Sequence[Image.Image], captions: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Median time of one picture and of one caption, from the decoded picture or the string to the feature.

    The encoders take turns, so that what else the machine does troubles all of them alike.
    """
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in encoders}
    for k in range(_WARM_UP + REPEATS):
        for name, encoder in encoders.items():
            times[name][0].append(_time(encoder.encode_images, [pictures[k % len(pictures)]]))
            times[name][1].append(_time(encoder.encode_texts, [captions[k % len(captions)]]))
    return {
        name: (statistics.median(image[_WARM_UP:]), statistics.median(text[_WARM_UP:]))
        for name, (image, text) in times.items()
    }


def _time(encode: Callable[[Sequence[Any]], Any], items: list[Any]) -> float:
    started = time.perf_counter()
    encode(items)
    return 1e3 * (time.perf_counter() - started)
