"""AdamW with rates for heads and for each layer of the towers, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from distilvl.config import OptimizerConfig, ScheduleConfig
from distilvl.students.dual_encoder import DualEncoder


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
    if config.kind == "step":
        passed = sum(step >= round(milestone * total) for milestone in config.milestones)
        return config.gamma**passed
    # The divisor is one more than the last step's index, so that the last step still learns.
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
