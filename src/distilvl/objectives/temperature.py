"""Temperatures that learn, as CLIP's does (Radford et al. 2021, section 2.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LOWEST = 0.01
"""CLIP's bound: logits are scaled by at most 100."""


class LearnedTemperature(nn.Module):
    """tau = exp(log_tau), at least `LOWEST`; divides like a number.

    Args:
        start: tau > 0 before the first step.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(float(start)).log())

    @property
    def value(self) -> Tensor:
        """tau, 0-d."""
        # Not in the graph: below the bound the gradient would be 0, and tau would stay there for good.
        with torch.no_grad():
            self.log_tau.clamp_(min=math.log(LOWEST))
        return self.log_tau.exp()

    def __rtruediv__(self, logits: Tensor) -> Tensor:
        """`logits / self`."""
        return logits / self.value
