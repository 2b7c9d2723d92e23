"""GradNorm (Chen, Badrinarayanan, Lee, Rabinovich, ICML 2018, section 3, algorithm 1)."""

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers.base import FLOOR, MAX_SCALE, Balance, Balancer, Step, Values
from distilvl.objectives.registry import Settings


def gradient_norms(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Values:
    """L2 norm of each 0-d loss's gradient with respect to all `shared` activations, of any shape, together.

    The graph is kept and no `.grad` is written, so the step's own backward pass can follow. A loss that does not
    depend on `shared` has norm 0; activations without a graph (a frozen tower's) are left out. Fabric's mixed precision
    refuses any backward pass of a model's outputs but its own: compute the losses from views, `z = z.view_as(z)`, then.

    Raises `DistilvlError` without activations that have a graph, or at a gradient that is NaN or infinite.
    """
    inputs = [activation for activation in shared if activation.requires_grad]
    if not inputs:
        problem = "this balancer needs the student's output features, with the graph that leads to the losses."
        raise DistilvlError(problem, "Call it as balancer(losses, (z_image, z_text)), outside torch.no_grad().")
    squares = torch.stack([_squared_norm(loss, inputs) for loss in losses.values()])
    norms = dict(zip(losses, squares.sqrt().tolist(), strict=True))
    for name, norm in norms.items():
        if not math.isfinite(norm):
            remedy = "Lower the learning rate, or choose a balancer that looks at losses only."
            raise DistilvlError(f"the gradient of loss {name!r} has norm {norm}.", remedy)
    return norms


def _squared_norm(loss: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Double precision, 0-d, on the activations' device."""
    total = torch.zeros((), dtype=torch.float64, device=inputs[0].device)
    if loss.requires_grad:
        for gradient in torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True):
            if gradient is not None:
                total = total + torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
    return total


class GradNormSettings(Settings):
    """Of `gradnorm`."""

    alpha: float = Field(1.5, ge=0, description="pull towards equal training rates")
    lr: float = Field(0.1, gt=0, le=2, description="largest step of log w_m")
    floor: float = Field(FLOOR, gt=0, description="the first loss above this is L_m(0)")


class GradNormBalancer(Balancer):
    """GradNorm (Chen et al., ICML 2018, section 3, algorithm 1): all losses pull equally hard, slow ones harder.

        G_m = || gradient of w_m L_m with respect to z ||,    z = the student's output features, both modalities
        r_m = (L_m(t) / L_m(0)) / mean_n (L_n(t) / L_n(0))    relative inverse training rate
        target_m = mean_n(G_n) * r_m^alpha
        log w_m moves by at most `lr` towards log(target_m / G_m), then w sums to K, the number of losses

    z is the last layer that all losses share. The move is gradient descent on sum_m |log G_m - log target_m| over
    log w_m, the target held constant: the sign of the paper's gradient, at a step that is the same in relative terms,
    since gradients here differ by factors of thousands. Targets are scaled to the mean of the G_m, as renormalisation
    would do anyway. A loss without gradient at this step (HND at 0) neither moves nor counts. Weights decided in a step
    come from the steps before it; the first are 1.

    `alpha` 0 asks for equal gradient norms. With the default `lr` a factor of 1,000 between two weights takes about 35
    steps. L_m(0) is the first loss above `floor`; until then its ratio counts as 1.
    """

    name, settings = "gradnorm", GradNormSettings

    def __init__(self, alpha: float = 1.5, lr: float = 0.1, floor: float = FLOOR) -> None:
        super().__init__()
        self.alpha, self.lr, self.floor = alpha, lr, floor

    def balance(self, step: Step) -> Balance:
        """The weights learnt so far; then one step of log w_m. Raises as `gradient_norms`."""
        norms = gradient_norms(step.losses, step.shared)
        weights = self.state.get("weight", step.ones)
        r = self._rates(step.values)
        G = {name: weight * norms[name] for name, weight in weights.items()}
        self.state["weight"] = self._moved(weights, G, {name: rate**self.alpha for name, rate in r.items()})
        return Balance(r, weights, step.ones)

    def _rates(self, values: Values) -> Values:
        """r_m, at most K; remembers each L_m(0) when it is first seen."""
        initial = self.state.get("initial", dict.fromkeys(values, 0.0))
        counted = {name: value if value > self.floor else 0.0 for name, value in values.items()}
        initial = self.state["initial"] = {name: first or counted[name] for name, first in initial.items()}
        ratios = {name: values[name] / first if first else 1.0 for name, first in initial.items()}
        mean = sum(ratios.values()) / len(ratios)
        return {name: ratio / mean if mean > 0 else 1.0 for name, ratio in ratios.items()}

    def _moved(self, current: Values, G: Values, pull: Values) -> Values:
        """Weights after one step towards G_m proportional to pull_m."""
        active = [name for name, norm in G.items() if norm > 0]
        total_norm, total_pull = sum(G[name] for name in active), sum(pull[name] for name in active)
        logs = {name: math.log(weight) for name, weight in current.items()}
        if total_pull > 0:
            for name in active:
                target = total_norm * pull[name] / total_pull
                move = math.log(target) - math.log(G[name]) if target > 0 else -math.inf
                logs[name] += min(max(move, -self.lr), self.lr)
        largest, least = max(logs.values()), -math.log(MAX_SCALE)  # bounds the ratio of two weights
        raw = {name: math.exp(max(log - largest, least)) for name, log in logs.items()}
        return {name: len(raw) * weight / sum(raw.values()) for name, weight in raw.items()}
