"""AdamW with two rates (towers, heads), and the learning-rate schedule as a function of the step."""

from __future__ import annotations

import math

import torch
from torch.optim import AdamW

from distilvl.config import OptimizerConfig, ScheduleConfig
from distilvl.students.dual_encoder import DualEncoder


def build_optimizer(encoder: DualEncoder, config: OptimizerConfig) -> AdamW:
    """AdamW over two groups, `towers` (without frozen ones) and `heads`; each keeps its own base rate as `base_lr`."""
    heads = encoder.heads()
    head_ids = {id(parameter) for parameter in heads}
    towers = [p for p in encoder.parameters() if p.requires_grad and id(p) not in head_ids]
    head_lr = config.lr if config.head_lr is None else config.head_lr
    groups = [
        {"name": "towers", "params": towers, "lr": config.lr, "base_lr": config.lr},
        {"name": "heads", "params": heads, "lr": head_lr, "base_lr": head_lr},
    ]
    return AdamW(groups, betas=config.betas, weight_decay=config.weight_decay, fused=True)


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
