"""The terms of eq. 15-17, one function each, on plain floats."""

from __future__ import annotations

import torch

from distilvl.objectives.balancers.base import Values

FLOOR = 1e-8
"""Below this a loss counts as this (the published code's epsilon): HND is exactly 0 at times."""

MAX_SCALE = 1e5
"""Largest s_m.

HND sums over the batch and FD averages over N x D, so ratios of some thousands are normal and stay untouched.
The bound acts on a hinge loss that is about to vanish: the gradient of its last active triplet does not
shrink with the loss, and s_m would blow it up without limit. At exactly 0 it is 0, whatever s_m."""


def scales(values: Values, floor: float = FLOOR, max_scale: float = MAX_SCALE) -> Values:
    """s_m = max_j L_j / L_m (eq. 15-16), from 1 to `max_scale`."""
    largest = max(floor, *values.values())
    return {name: min(largest / max(value, floor), max_scale) for name, value in values.items()}


def rates(values: Values, previous: Values, floor: float = FLOOR) -> Values:
    """r_m = L_m(t) / L_m(t-1) (before eq. 17); 1 where the previous loss is unknown or at the floor.

    After a loss of 0 the ratio says nothing about progress, and taken literally it would hand the whole
    softmax to a loss that has just come back.
    """
    return {name: value / previous[name] if previous.get(name, 0.0) > floor else 1.0 for name, value in values.items()}


def weights(rates: Values, tau: float, total: float) -> Values:
    """w_m = K exp(r_m / tau) / sum_n exp(r_n / tau) (eq. 17); log-softmax, so that no exp overflows."""
    logits = torch.tensor(list(rates.values()), dtype=torch.float64) / tau
    softmax = torch.log_softmax(logits, dim=0).exp().tolist()
    return {name: total * share for name, share in zip(rates, softmax, strict=True)}
