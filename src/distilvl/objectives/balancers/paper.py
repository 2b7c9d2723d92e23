"""The paper's dynamic balancer (eq. 15-18), read as: ratios of raw losses, at every step."""

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
        w_m = K exp(r_m / tau_b) / sum_n exp(r_n / tau_b)    eq. 17, sums to K, the number of losses
        objective = sum_m w_m s_m L_m                        eq. 18

    The smaller `tau`, tau_b > 0, the more the slowest loss takes. A loss below `floor` counts as this. By `smoothing`,
    beta in [0, 1), rates are ratios of the means beta * mean + (1 - beta) * L_m; it is 0 in the paper.

    >>> import torch
    >>> from distilvl.objectives.balancers import PaperBalancer
    >>> weights = PaperBalancer(tau=1.0)({"cd": torch.tensor(2.0), "fd": torch.tensor(0.1)})
    """

    name, settings = "paper", PaperSettings

    def __init__(self, tau: float = 1.0, floor: float = FLOOR, smoothing: float = 0.0) -> None:
        super().__init__()
        self.tau, self.floor, self.smoothing = tau, floor, smoothing

    def balance(self, step: Step) -> Balance:
        """Eq. 15-18 for this step."""
        values, previous, beta = step.values, self.state.get("previous", {}), self.smoothing
        current = {name: beta * previous.get(name, value) + (1 - beta) * value for name, value in values.items()}
        self.state["previous"] = current
        r = rates(current, previous, self.floor)
        return Balance(r, weights(r, self.tau, len(values)), scales(values, self.floor))
