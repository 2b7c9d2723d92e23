"""The paper's dynamic balancer (eq. 15-18), read as: ratios of raw losses, at every step."""

from __future__ import annotations

from pydantic import Field

from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, rates, scales, weights
from distilvl.objectives.registry import Settings


class PaperSettings(Settings):
    """Of `paper`."""

    tau: float = Field(1.0, gt=0, description="tau_b")
    floor: float = Field(FLOOR, gt=0, description="a loss below this counts as this")
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the old running mean of each loss kept at each step"
    )


class PaperBalancer(Balancer):
    """Every loss scaled to the size of the largest, then weighted by how slowly it falls.

        s_m = sg(max_j L_j / L_m)                            eq. 15-16, from 1 to `MAX_SCALE`
        r_m = L_m(t) / L_m(t-1)                              1 at the first step and after a vanished loss
        w_m = K exp(r_m / tau_b) / sum_n exp(r_n / tau_b)    eq. 17, sums to K
        objective = sum_m w_m s_m L_m                        eq. 18

    Args:
        tau: tau_b > 0; the smaller, the more the slowest loss takes.
        floor: a loss below this counts as this.
        total: K; the number of losses by default.
        smoothing: beta in [0, 1); 0 is the paper. Otherwise rates are ratios of the running means
            beta * mean + (1 - beta) * L_m: means of the losses, not of the rates, since the rate after one
            near-zero loss would dominate its mean for many steps.

    >>> import torch
    >>> from distilvl.objectives.balancers import PaperBalancer
    >>> weights = PaperBalancer(tau=1.0)({"cd": torch.tensor(2.0), "fd": torch.tensor(0.1)})
    """

    name, settings = "paper", PaperSettings

    def __init__(
        self, tau: float = 1.0, floor: float = FLOOR, total: float | None = None, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.tau = tau
        self.floor = floor
        self.total = total
        self.smoothing = smoothing

    def balance(self, step: Step) -> Balance:
        """Eq. 15-18 for this step."""
        values, previous = step.values, self.state.get("previous", {})
        beta = self.smoothing
        current = {name: beta * previous.get(name, value) + (1 - beta) * value for name, value in values.items()}
        self.state["previous"] = current
        r = rates(current, previous, self.floor)
        K = len(values) if self.total is None else self.total
        return Balance(r, weights(r, self.tau, K), scales(values, self.floor))
