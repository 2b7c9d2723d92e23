"""Fixed weights: Table 5's row "without balancer", and what a careful baseline would tune."""

from collections.abc import Mapping

from pydantic import Field

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers.base import Balance, Balancer, Step
from distilvl.objectives.registry import Settings


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
