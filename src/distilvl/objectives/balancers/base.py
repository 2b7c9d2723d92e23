"""What every balancer is built on: its base class, and the terms of eq. 15-17 as functions of plain floats."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.objectives.registry import Registry, Settings

Values = dict[str, float]  # one number for each loss, by the loss's name


@dataclass(frozen=True, slots=True)
class Step:
    """What a balancer may look at in one step.

    `values` are the raw losses L_m as finite floats, `losses` the same as 0-d tensors with their graph, and `shared`
    the activations that every loss is computed from, with their graph: the student's output features.
    """

    values: Values
    losses: Mapping[str, Tensor]
    shared: Sequence[Tensor]

    @property
    def ones(self) -> Values:
        """1 for each loss."""
        return dict.fromkeys(self.values, 1.0)


@dataclass(frozen=True, slots=True)
class Balance:
    """A balancer's decision for one step; the objective is sum_m weights[m] * scales[m] * L_m."""

    rates: Values
    weights: Values
    scales: Values


class Balancer(ABC):
    """Turns raw losses L_m into multipliers so that sum_m multiplier_m * L_m is the objective (eq. 18).

    Multipliers are constants, without gradient, in double precision: the same losses give the same, bit for bit.
    A subclass with a `name` and `balance` is all that a new balancer needs; see docs/losses.md.

    `report` is of the last call, for logging: `{"rate": r_m, "weight": w_m, "scale": s_m}`, each by loss; `state` is
    everything that later calls depend on, as `{group: {loss: float}}`.
    """

    name: ClassVar[str] = ""  # `balancer.name` in recipes
    settings: ClassVar[type[Settings]] = Settings  # the other keys of `balancer`; its fields are the class's arguments

    def __init__(self) -> None:
        self.report: dict[str, Values] = {}
        self.state: dict[str, Values] = {}

    @abstractmethod
    def balance(self, step: Step) -> Balance:
        """Decide from this step's losses, and remember in `state` what the next step needs."""

    def end_epoch(self) -> None:  # noqa: B027 (a hook that most balancers leave empty)
        """Told after each epoch; only balancers that work on epochs care."""

    def __call__(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        """The multiplier of each raw loss L_m, 0-d tensors on the loss's device.

        `shared` are the student's output features (z_image, z_text), each (N, D); only `GradNormBalancer` needs them.
        `DistilvlError` names a loss that is missing, new, NaN or infinite.
        """
        values = _checked(losses, self.state)
        decided = self.balance(Step(values, losses, shared))
        self.report = {"rate": decided.rates, "weight": decided.weights, "scale": decided.scales}
        dtypes = {name: torch.promote_types(loss.dtype, torch.float32) for name, loss in losses.items()}
        factors = {name: decided.weights[name] * decided.scales[name] for name in losses}
        return {name: torch.tensor(factors[name], dtype=dtypes[name], device=losses[name].device) for name in losses}

    def state_dict(self) -> dict[str, Values]:
        """A copy of `state`: nested dicts of Python floats, which JSON stores exactly."""
        return copy.deepcopy(self.state)

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from what `state_dict()` returned."""
        self.state = {group: dict(values) for group, values in state.items()}


BALANCERS: Registry[Balancer] = Registry(
    "balancer", Balancer, "distilvl.objectives.balancers", "distilvl.balancers", ("paper", "official")  # type: ignore[type-abstract]
)  # fmt: skip
"""All balancers by name."""


def _checked(losses: Mapping[str, Tensor], state: Mapping[str, Values]) -> Values:
    if not losses:
        raise DistilvlError("the balancer got no losses.", "Choose at least one in objective.losses.")
    for known in state.values():
        changed = sorted(set(known) ^ set(losses))
        if changed:
            what = "is missing" if changed[0] in known else "was not there before"
            remedy = "Keep the same losses for the whole run, or start a new run."
            raise DistilvlError(f"loss {changed[0]!r} {what}; this run balances {', '.join(known)}.", remedy)
    numbers = torch.stack([loss.detach().reshape(()) for loss in losses.values()]).cpu().double().tolist()
    values = dict(zip(losses, numbers, strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise DistilvlError(f"loss {name!r} is {value}.", "Lower the learning rate, or check the features for NaN.")
    return values


FLOOR = 1e-8  # below this a loss counts as this (the published code's epsilon): HND is exactly 0 at times

MAX_SCALE = 1e5
"""Largest s_m: ratios of some thousands are normal; a hinge loss about to vanish, whose gradient does not shrink with
it, would be blown up without limit."""


def scales(values: Values, floor: float = FLOOR) -> Values:
    """s_m = max_j L_j / L_m (eq. 15-16), from 1 to `MAX_SCALE`."""
    largest = max(floor, *values.values())
    return {name: min(largest / max(value, floor), MAX_SCALE) for name, value in values.items()}


def rates(values: Values, previous: Values, floor: float = FLOOR) -> Values:
    """r_m = L_m(t) / L_m(t-1) (before eq. 17); 1 where the previous loss is unknown or at the floor."""
    return {name: value / previous[name] if previous.get(name, 0.0) > floor else 1.0 for name, value in values.items()}


def weights(rates: Values, tau: float, total: float) -> Values:
    """w_m = K exp(r_m / tau) / sum_n exp(r_n / tau) (eq. 17); log-softmax, so that no exp overflows."""
    logits = torch.tensor(list(rates.values()), dtype=torch.float64) / tau
    softmax = torch.log_softmax(logits, dim=0).exp().tolist()
    return {name: total * share for name, share in zip(rates, softmax, strict=True)}
