"""The paper's dynamic balancer (eq. 15-18): ratios of raw losses, and four readings of when losses are scaled."""

import math
from typing import Literal

from pydantic import Field

from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, Values, rates, scales, weights
from distilvl.objectives.registry import Settings

Scaling = Literal["every_step", "first_step", "running_mean", "power_of_ten"]
_MEMORY = 0.99  # share of the old running mean that is kept at each step


class PaperSettings(Settings):
    """Of `paper`."""

    tau: float = Field(1.0, gt=0, description="tau_b")
    floor: float = Field(FLOOR, gt=0, description="a loss below this counts as this")
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the old running mean of each loss kept at each step"
    )
    scaling: Scaling = Field(
        "every_step",
        description="when s_m is taken: at every step, once at the first, of running means, or as powers of ten",
    )


class PaperBalancer(Balancer):
    """Every loss scaled to the size of the largest, then weighted by how slowly it falls.

        s_m = sg(max_j L_j / L_m)                            eq. 15-16, from 1 to `MAX_SCALE`
        r_m = L_m(t) / L_m(t-1)                              1 at the first step and after a vanished loss
        w_m = K exp(r_m / tau_b) / sum_n exp(r_n / tau_b)    eq. 17, sums to K, the number of losses
        objective = sum_m w_m s_m L_m                        eq. 18

    The smaller `tau`, tau_b > 0, the more the slowest loss takes. A loss below `floor` counts as this. By `smoothing`,
    beta in [0, 1), rates are ratios of the means beta * mean + (1 - beta) * L_m; it is 0 in the paper.

    "All losses are first scaled to the same magnitude" does not say when. By `scaling` s_m is

        every_step      max_j L_j(t) / L_m(t)
        first_step      max_j L_j(0) / L_m(0), constant afterwards
        running_mean    max_j M_j / M_m, M_m <- 0.99 M_m + 0.01 L_m(t), M_m = L_m at the first step
        power_of_ten    10^(floor lg max_j L_j(t) - floor lg L_m(t))

    >>> import torch
    >>> from distilvl.objectives.balancers import PaperBalancer
    >>> weights = PaperBalancer(tau=1.0)({"cd": torch.tensor(2.0), "fd": torch.tensor(0.1)})
    """

    name, settings = "paper", PaperSettings

    def __init__(
        self, tau: float = 1.0, floor: float = FLOOR, smoothing: float = 0.0, scaling: Scaling = "every_step"
    ) -> None:
        super().__init__()
        self.tau, self.floor, self.smoothing, self.scaling = tau, floor, smoothing, scaling

    def balance(self, step: Step) -> Balance:
        """Eq. 15-18 for this step."""
        values, previous, beta = step.values, self.state.get("previous", {}), self.smoothing
        current = {name: beta * previous.get(name, value) + (1 - beta) * value for name, value in values.items()}
        self.state["previous"] = current
        r = rates(current, previous, self.floor)
        return Balance(r, weights(r, self.tau, len(values)), self._scales(values))

    def _scales(self, values: Values) -> Values:
        """s_m of this step, by the reading."""
        match self.scaling:
            case "every_step":
                return scales(values, self.floor)
            case "first_step":
                return dict(self.state.setdefault("scales", scales(values, self.floor)))
            case "running_mean":
                means = self.state.get("means", values)
                self.state["means"] = {name: _MEMORY * means[name] + (1 - _MEMORY) * values[name] for name in values}
                return scales(self.state["means"], self.floor)
            case "power_of_ten":
                return scales({name: 10.0 ** self._magnitude(value) for name, value in values.items()}, self.floor)

    def _magnitude(self, value: float) -> int:
        return math.floor(math.log10(max(value, self.floor)))
