"""Rows for the losses: seeded, float64, far from kinks with probability one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

Rows = Callable[[int, int, int], Tensor]


@pytest.fixture(scope="session")
def unit_rows() -> Rows:
    def make(n: int, dim: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return F.normalize(torch.randn(n, dim, dtype=torch.float64, generator=generator), dim=1)

    return make
