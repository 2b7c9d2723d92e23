"""How hard each loss pulls at the student's output features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.objectives.balancers.base import Values


def gradient_norms(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Values:
    """L2 norm of each loss's gradient with respect to all `shared` activations together.

    The graph is kept and no `.grad` is written, so the step's own backward pass can follow. A loss that does not
    depend on `shared` has norm 0; activations without a graph (a frozen tower's) are left out.

    Lightning Fabric's mixed precision puts a hook on a model's outputs that refuses any backward pass but its own.
    Compute the losses from views of them then, `z = z.view_as(z)`, and give the views: the gradient stops before
    the hook.

    Args:
        losses: 0-d tensors.
        shared: activations that the losses were computed from, of any shape.

    Raises:
        DistilvlError: no activations with a graph; or a gradient that is NaN or infinite.
    """
    inputs = [activation for activation in shared if activation.requires_grad]
    if not inputs:
        raise DistilvlError(
            "this balancer needs the student's output features, with the graph that leads to the losses.",
            "Call it as balancer(losses, (z_image, z_text)), outside torch.no_grad().",
        )
    squares = torch.stack([_squared_norm(loss, inputs) for loss in losses.values()])
    norms = dict(zip(losses, squares.sqrt().tolist(), strict=True))
    for name, norm in norms.items():
        if not math.isfinite(norm):
            raise DistilvlError(
                f"the gradient of loss {name!r} has norm {norm}.",
                "Lower the learning rate, or choose a balancer that looks at losses only.",
            )
    return norms


def _squared_norm(loss: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """Double precision, 0-d, on the activations' device."""
    total = torch.zeros((), dtype=torch.float64, device=inputs[0].device)
    if loss.requires_grad:
        for gradient in torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True):
            if gradient is not None:
                total = total + torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
    return total
