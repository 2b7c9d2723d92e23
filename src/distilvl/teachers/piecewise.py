"""Teachers whose answers arrive piece by piece, and are worth keeping even when a later piece fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
from PIL import Image

from distilvl.errors import DistilvlError

Arrived = Callable[[Sequence[int], npt.NDArray[Any]], None]
"""Told the positions of the items that were answered, and their rows, shape (n, dim); called from any thread."""


@runtime_checkable
class PiecewiseTeacher(Protocol):
    """What a teacher has besides the `Teacher` protocol when every answer costs money.

    An item's answer must not depend on what else is asked. Both methods return when every item has been answered
    once, or raise when what could be answered has been: `UnansweredError` where single items are at fault.
    """

    def ask_images(self, images: Sequence[Image.Image], arrived: Arrived) -> None:
        """Answer all RGB `images`, in any order."""

    def ask_texts(self, texts: Sequence[str], arrived: Arrived) -> None:
        """Answer all `texts`, in any order."""

    def estimate(self, images: int, texts: Sequence[str]) -> str:
        """One line on what asking for so many images and for `texts` will take, in requests, time and money."""


class UnansweredError(DistilvlError):
    """Items that the teacher was asked for and did not answer.

    Args:
        positions: which ones, of those in the call; at least one.
        reason: what went wrong, as part of a sentence.
        remedy: what the user can do about it.
        refused: the teacher was reached and does not take these items, so that they may be left out as bad ones;
            False where it could not answer at all.
    """

    def __init__(self, positions: Sequence[int], reason: str, remedy: str, *, refused: bool = False) -> None:
        super().__init__(f"{len(positions)} items were not answered: {reason}.", remedy)
        self.positions, self.reason, self.remedy, self.refused = list(positions), reason, remedy, refused
