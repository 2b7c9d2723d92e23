"""A teacher of a few lines, for the tests that train: `tests/colour_teacher.py:ColourTeacher`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


class ColourTeacher:
    """What is not white in the image; the caption's letters, by way of a fixed random projection."""

    name, revision, dim = "colour", "1", 12

    def __init__(self) -> None:
        self.projection = np.random.default_rng(0).normal(size=(30, 12))

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        # Of 256, so that a picture that is all white has a feature too.
        rows = [1 - np.asarray(image.resize((3, 3)), dtype=np.float64).ravel() / 256 for image in images]
        return np.stack(rows) @ self.projection[:27]

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        counts = [[text.count(chr(97 + k)) - 0.5 for k in range(26)] + [0, 0, 0, 0] for text in texts]
        return np.array(counts, dtype=np.float64) @ self.projection
