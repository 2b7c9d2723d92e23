"""The paper's balancer (eq. 15-18), the one of its code, DWA, which it comes from, and fixed weights."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, rates, scales, weights
from distilvl.objectives.registry import Settings

TOTAL = 10.0  # K of the published code


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


class DWASettings(Settings):
    """Of `dwa`."""

    tau: float = Field(1.0, gt=0, description="temperature")
    floor: float = Field(FLOOR, gt=0, description="after an epoch with a mean at or below this the rate counts as 1")


class DWABalancer(Balancer):
    """Dynamic weight average (Liu et al., CVPR 2019, section 3.2), from ratios of epoch means; losses are not scaled.

        r_m = mean L_m of the last epoch / mean L_m of the epoch before
        w_m = K exp(r_m / tau) / sum_n exp(r_n / tau),   K = the number of losses

    constant within an epoch, and 1 for the first two epochs and after an epoch with a mean of at most `floor`. Call
    `end_epoch()` after each. `tau` > 0 is 2 in the DWA paper, 1 in DSMD.
    """

    name, settings = "dwa", DWASettings

    def __init__(self, tau: float = 1.0, floor: float = FLOOR) -> None:
        super().__init__()
        self.tau, self.floor = tau, floor

    def balance(self, step: Step) -> Balance:
        """This epoch's weights; adds the losses to the epoch's sums."""
        values, nothing = step.values, dict.fromkeys(step.values, 0.0)
        sums, steps = self.state.get("sum", nothing), self.state.get("steps", nothing)
        self.state["sum"] = {name: sums[name] + value for name, value in values.items()}
        self.state["steps"] = {name: count + 1 for name, count in steps.items()}
        if "mean_before" not in self.state:
            return Balance(step.ones, step.ones, step.ones)
        r = rates(self.state["mean"], self.state["mean_before"], self.floor)
        return Balance(r, weights(r, self.tau, len(values)), step.ones)

    def end_epoch(self) -> None:
        """Turn the epoch's sums into means and start the next epoch."""
        if "steps" not in self.state:
            return
        sums, steps = self.state.pop("sum"), self.state.pop("steps")
        if "mean" in self.state:
            self.state["mean_before"] = self.state["mean"]
        self.state["mean"] = {name: sums[name] / steps[name] for name in sums}


class StaticSettings(Settings):
    """Of `static`."""

    weights: dict[str, float] = Field({}, description="by loss; 1 where not given")


class StaticBalancer(Balancer):
    """Multiplies each loss by a constant, its entry in `weights` or 1: Table 5's row "without balancer"."""

    name, settings = "static", StaticSettings

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})

    def balance(self, step: Step) -> Balance:
        """The constants; `DistilvlError` when a weight names a loss that is not there."""
        for name in self.weights:
            if name not in step.values:
                remedy = f"Its losses are: {', '.join(step.values)}."
                raise DistilvlError(f"there is a weight for loss {name!r}, which this run does not have.", remedy)
        return Balance(step.ones, {**step.ones, **self.weights}, step.ones)
