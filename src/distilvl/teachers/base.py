"""What a teacher is: anything that turns images and texts into rows of one shared space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
from PIL import Image


@runtime_checkable
class Teacher(Protocol):
    """The only things asked of a teacher (eq. 1-2 of the paper: its output features).

    A teacher may also have `num_parameters: int` and `preprocessing: str`; both are recorded when present.
    """

    name: str
    revision: str
    dim: int

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        """RGB images to float rows, shape (n, dim)."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        """Texts to float rows, shape (n, dim)."""
