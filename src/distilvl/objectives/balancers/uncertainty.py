"""Homoscedastic uncertainty weighting (Kendall, Gal, Cipolla, CVPR 2018, section 3.2)."""

import math

from pydantic import Field

from distilvl.objectives.balancers.base import MAX_SCALE, Balance, Balancer, Step
from distilvl.objectives.registry import Settings


class UncertaintySettings(Settings):
    """Of `uncertainty`."""

    lr: float = Field(0.1, gt=0, le=2, description="step of log sigma^2")


class UncertaintyBalancer(Balancer):
    """Each loss weighted by a learnt precision (Kendall, Gal, Cipolla, CVPR 2018, section 3.2).

        objective = sum_m L_m / (2 sigma_m^2) + log sigma_m,   s_m = log sigma_m^2
        w_m = exp(-s_m) / 2

    s_m starts at 0 and is learnt here, by one step of gradient descent after each decision, so that the weights of a
    step come from the losses before it:

        s_m <- s_m - lr * max(-1/2, (1 - exp(-s_m) L_m) / 2)

    The bound of -1/2 leaves the minimum, s_m = log L_m, where it is, and lets s_m come back fast after a loss of 0;
    exp(s_m) and exp(-s_m) are at most `MAX_SCALE`. With `lr` from 0 to 2, s_m moves by at most lr / 2 a step, and near
    its minimum exp(s_m) is a running mean of L_m over about 2 / lr steps.
    """

    name, settings = "uncertainty", UncertaintySettings

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr

    def balance(self, step: Step) -> Balance:
        """The weights learnt so far; then one step of s_m."""
        log_variance = self.state.get("log_variance", dict.fromkeys(step.values, 0.0))
        bound, moved = math.log(MAX_SCALE), {}
        for name, s in log_variance.items():
            gradient = max(-0.5, (1 - math.exp(-s) * step.values[name]) / 2)
            moved[name] = min(max(s - self.lr * gradient, -bound), bound)
        self.state["log_variance"] = moved
        return Balance(step.ones, {name: math.exp(-s) / 2 for name, s in log_variance.items()}, step.ones)
