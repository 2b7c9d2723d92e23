"""The balancer as the authors' code has it: ratios of scaled losses."""

from __future__ import annotations

from distilvl.objectives.balancers.base import FLOOR, MAX_SCALE, Balance, Balancer, Step, scales, weights


class OfficialBalancer(Balancer):
    """Ratios of the *scaled* losses s_m L_m, which all equal max_j L_j, so that every r_m is the same:

        r_m = max_j L_j(t) / max_j L_j(t-1),   w_m s_m = (K / number of losses) * max_j L_j / L_m

    whatever `tau`. The first step is neither weighted nor scaled. Kept by name so that runs of the published
    code can be compared with; its NaN after a loss of exactly 0 is mended by the floor.

    Args:
        tau: tau_b > 0; has no effect, as in the published code.
        floor: a loss below this counts as this.
        total: K, 10 in the published code.
        max_scale: bound on s_m, see `terms.MAX_SCALE`.
    """

    def __init__(
        self, tau: float = 1.0, floor: float = FLOOR, total: float = 10.0, max_scale: float = MAX_SCALE
    ) -> None:
        super().__init__()
        self.tau = tau
        self.floor = floor
        self.total = total
        self.max_scale = max_scale

    def balance(self, step: Step) -> Balance:
        """Equal weights on scaled losses, after a first step of plain ones."""
        values, previous = step.values, self.state.get("previous_scaled")
        scaled = dict.fromkeys(values, max(self.floor, *values.values()))
        self.state["previous_scaled"] = scaled
        ones = dict.fromkeys(values, 1.0)
        if previous is None:
            return Balance(ones, ones, ones)
        r = {name: scaled[name] / previous[name] for name in values}
        return Balance(r, weights(r, self.tau, self.total), scales(values, self.floor, self.max_scale))
