"""The balancer as the authors' code has it: ratios of scaled losses."""

from pydantic import Field

from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, scales, weights
from distilvl.objectives.registry import Settings

TOTAL = 10.0  # K of the published code


class OfficialSettings(Settings):
    """Of `official`, where tau_b has no effect."""

    floor: float = Field(FLOOR, gt=0, description="a loss below this counts as this")


class OfficialBalancer(Balancer):
    """As published code has it: ratios of the *scaled* losses s_m L_m, which all equal max_j L_j, so all r_m are one:

        r_m = max_j L_j(t) / max_j L_j(t-1),   w_m s_m = (K / number of losses) * max_j L_j / L_m

    The first step is neither weighted nor scaled. The code's NaN after a loss of exactly 0 is mended by `floor`, which
    a loss below counts as. `tau` has no effect, as in the published code.
    """

    name, settings = "official", OfficialSettings

    def __init__(self, tau: float = 1.0, floor: float = FLOOR) -> None:
        super().__init__()
        self.tau, self.floor = tau, floor

    def balance(self, step: Step) -> Balance:
        """Equal weights on scaled losses, after a first step of plain ones."""
        values, previous = step.values, self.state.get("previous_scaled")
        scaled = dict.fromkeys(values, max(self.floor, *values.values()))
        self.state["previous_scaled"] = scaled
        if previous is None:
            return Balance(step.ones, step.ones, step.ones)
        r = {name: scaled[name] / previous[name] for name in values}
        return Balance(r, weights(r, self.tau, TOTAL), scales(values, self.floor))
