"""EMA: a running mean of the student's weights, which is what is scored and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(encoder: nn.Module, decay: float) -> AveragedModel:
    """A copy of `encoder` whose weights follow it when `update_parameters(encoder)` is called after each step.

        mean <- d mean + (1 - d) weights        with d = min(decay, (1 + n) / (10 + n)) after n updates

    The smaller d of the first steps lets the mean forget the untrained weights. Buffers are copied.

    Args:
        encoder: the module that learns.
        decay: in (0, 1); the mean reaches back about 1 / (1 - decay) steps.
    """
    return AveragedModel(encoder, multi_avg_fn=_towards(decay))


def _towards(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    @torch.no_grad()
    def update(means: Sequence[Tensor], weights: Sequence[Tensor], count: Any) -> None:
        n = float(count)
        torch._foreach_lerp_(list(means), list(weights), 1 - min(decay, (1 + n) / (10 + n)))

    return update
