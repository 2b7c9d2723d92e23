"""The balancer as the authors' code has it: ratios of scaled losses."""

from __future__ import annotations

from pydantic import Field

from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, scales, weights
from distilvl.objectives.registry import Settings

TOTAL = 10.0
"""K of the published code."""


class OfficialSettings(Settings):
    """Of `official`, where tau_b has no effect."""

    floor: float = Field(FLOOR, gt=0, description="a loss below this counts as this")


class OfficialBalancer(Balancer):
    """Ratios of the *scaled* losses s_m L_m, which all equal max_j L_j, so that every r_m is the same:

        r_m = max_j L_j(t) / max_j L_j(t-1),   w_m s_m = (K / number of losses) * max_j L_j / L_m

    whatever `tau`. The first step is neither weighted nor scaled. Kept by name so that runs of the published
    code can be compared with; its NaN after a loss of exactly 0 is mended by the floor.

    Args:
        tau: tau_b > 0; has no effect, as in the published code.
        floor: a loss below this counts as this.
    """

    name, settings = "official", OfficialSettings

    def __init__(self, tau: float = 1.0, floor: float = FLOOR) -> None:
        super().__init__()
        self.tau = tau
        self.floor = floor

    def balance(self, step: Step) -> Balance:
        """Equal weights on scaled losses, after a first step of plain ones."""
        values, previous = step.values, self.state.get("previous_scaled")
        scaled = dict.fromkeys(values, max(self.floor, *values.values()))
        self.state["previous_scaled"] = scaled
        ones = dict.fromkeys(values, 1.0)
        if previous is None:
            return Balance(ones, ones, ones)
        r = {name: scaled[name] / previous[name] for name in values}
        return Balance(r, weights(r, self.tau, TOTAL), scales(values, self.floor))
