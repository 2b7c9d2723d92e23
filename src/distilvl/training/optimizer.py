"""AdamW with rates for heads and for each layer of the towers, the learning rate by step,
and the EMA of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from distilvl.config import OptimizerConfig, ScheduleConfig, StepSchedule
from distilvl.students.dual_encoder import DualEncoder


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


def build_optimizer(encoder: DualEncoder, config: OptimizerConfig, others: Iterable[nn.Parameter] = ()) -> AdamW:
    """AdamW; each group keeps its own base rate as `base_lr`.

    Args:
        encoder: the student. Its towers' layers (without frozen towers) are groups named `towers`, the lowest first,
            with rates that fall by `layer_decay` from each layer to the one below (Clark et al. 2020; BEiT); one
            group when it is 1. What lies behind the towers is the group `heads`.
        config: rates and decay.
        others: weights of the objective, the group `objective`, with the heads' rate and no weight decay.
    """
    head_lr = config.lr if config.head_lr is None else config.head_lr
    groups: list[dict[str, Any]] = [
        {"name": "towers", "params": parameters, "lr": config.lr * factor, "base_lr": config.lr * factor}
        for factor, parameters in _by_factor(encoder, config.layer_decay)
    ]
    groups.append({"name": "heads", "params": encoder.heads(), "lr": head_lr, "base_lr": head_lr})
    if others := list(others):
        groups.append({"name": "objective", "params": others, "lr": head_lr, "base_lr": head_lr, "weight_decay": 0.0})
    return AdamW(groups, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def _by_factor(encoder: DualEncoder, decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """The towers' parameters by the factor of their rate, the smallest first; always one group at least."""
    found: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameters in encoder.tower_layers():
        for depth, layer in enumerate(reversed(parameters)):
            found.setdefault(decay**depth, []).extend(layer)
    return sorted(found.items())


def rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """What the base rates are multiplied with at `step` of `total` (steps count from 0); in (0, 1].

    `step`: times gamma at each milestone (the paper: times 0.1 at half time). `cosine`: half a cosine to zero.
    Both after an optional linear warm-up.
    """
    warmup = int(config.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if isinstance(config, StepSchedule):
        passed = sum(step >= round(milestone * total) for milestone in config.milestones)
        return config.gamma**passed
    # The divisor is one more than the last step's index, so that the last step still learns.
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
