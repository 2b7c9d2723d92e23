"""Dynamic weight average (Liu et al., CVPR 2019, section 3.2), where the paper's weights come from."""

from pydantic import Field

from distilvl.objectives.balancers.base import FLOOR, Balance, Balancer, Step, rates, weights
from distilvl.objectives.registry import Settings


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
