"""Inputs of the baselines' tests: four random modalities, and rows made by a formula for stored reference values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

Quadruple = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="session")
def features(unit_rows) -> Callable[..., Quadruple]:
    """z_image, z_text, u_image, u_text: float64, L2-normalised (n, dim)."""

    def make(n: int = 5, dim: int = 4, seed: int = 0) -> Quadruple:
        return tuple(unit_rows(n, dim, 10 * seed + k) for k in range(1, 5))

    return make


@pytest.fixture(scope="session")
def wave_rows() -> Callable[[int, int, float], Tensor]:
    """L2-normalised rows of sin(phase + 1.7 i + 2.3 j + 0.9 i j): the same on every machine, with every torch."""

    def make(n: int, dim: int, phase: float) -> Tensor:
        i = torch.arange(n, dtype=torch.float64)[:, None]
        j = torch.arange(dim, dtype=torch.float64)[None, :]
        return F.normalize(torch.sin(phase + 1.7 * i + 2.3 * j + 0.9 * i * j), dim=1)

    return make
