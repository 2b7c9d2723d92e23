"""Rows at a part of their width: what a Matryoshka student is used as, and so what it is trained as."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from distilvl.objectives.queue import Negatives


def truncate(rows: Tensor, width: int) -> Tensor:
    """The first `width` columns of rows (N, D), made unit rows: (N, width)."""
    return F.normalize(rows[:, :width], dim=1)


class Narrow:
    """A queue at a part of its width, as `Negatives`.

    Args:
        queue: features (K, D) and image ids (K,).
        width: below D.
    """

    def __init__(self, queue: Negatives, width: int) -> None:
        self.features = truncate(queue.features, width)
        self.ids = queue.ids
