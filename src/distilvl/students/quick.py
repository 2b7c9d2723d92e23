"""The top of a tower that learns, as quick as PyTorch computes it on a CPU; the same but for rounding.

Two kinds of layers cost there more than they are worth. Depthwise convolutions have slow gradients in bfloat16, and are
computed in float32. Batch normalisation whose statistics stay is linear, and goes into the weights of the convolution
before it, so that neither it nor its gradient reads the maps:

    gamma (W * x - mu) / sigma + beta = (s W) * x + beta - s mu,    s = gamma / sigma,   sigma^2 = var + eps

gamma gets its gradient through s W, which is equal. A view stands for the module: it shares all weights.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def is_depthwise(convolution: nn.Conv2d) -> bool:
    """Whether each of its channels is computed from one."""
    return convolution.groups == convolution.in_channels > 1


def quick(module: Any) -> Any:
    """`module` with its depthwise convolutions computed in float32; whatever holds none is shared."""
    depthwise = [one for one in module.modules() if isinstance(one, nn.Conv2d) and is_depthwise(one)]
    return _view(module, {one: partial(_in_full_precision, one) for one in depthwise})


def folded(module: Any, run: Callable[[], object]) -> Any:
    """`module` with batch normalisations folded into the learning convolutions whose outputs they read.

    `run` computes `module` once, on whatever it takes. Only what is computed between the two is known, so that who
    calls this has to compare: where a convolution's output is read by others as well, the outputs differ.
    """
    pairs = _pairs(module, run)
    forwards: dict[nn.Module, Callable[..., Any]] = {}
    for convolution, normalisation in pairs:
        forwards[convolution] = partial(_scaled, convolution, normalisation)
        forwards[normalisation] = partial(_after, normalisation)
    return _view(module, forwards)


def _pairs(module: Any, run: Callable[[], object]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Learning convolutions, each with the normalisation that reads what it gives."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # with the tensor, whose number is another's once it is gone
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def gives(convolution: Any, _: Any, output: Any) -> None:
        made[id(output)] = convolution, output

    def reads(normalisation: Any, given: Any) -> None:
        if id(given[0]) in made:
            found.append((made[id(given[0])][0], normalisation))

    hooks = []
    for one in module.modules():
        if isinstance(one, nn.Conv2d) and _can_be_scaled(one):
            hooks.append(one.register_forward_hook(gives))
        elif isinstance(one, nn.BatchNorm2d) and one.affine and one.track_running_stats:
            hooks.append(one.register_forward_pre_hook(reads))
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _can_be_scaled(convolution: nn.Conv2d) -> bool:
    # A depthwise one keeps its kernel, of which a scaled one would need the gradients.
    plain = convolution.padding_mode == "zeros" and type(convolution).forward is nn.Conv2d.forward
    return plain and convolution.weight.requires_grad and not is_depthwise(convolution)


def _scaled(convolution: nn.Conv2d, normalisation: Any, x: Tensor) -> Tensor:
    """Both at once."""
    scale = normalisation.weight * torch.rsqrt(normalisation.running_var + normalisation.eps)
    shift = normalisation.running_mean if convolution.bias is None else normalisation.running_mean - convolution.bias
    return F.conv2d(
        x, convolution.weight * scale[:, None, None, None], normalisation.bias - shift * scale,
        convolution.stride, convolution.padding, convolution.dilation, convolution.groups,
    )  # fmt: skip


def _after(normalisation: Any, x: Tensor) -> Tensor:
    """What is left of it; timm's classes have an activation in them."""
    return x if type(normalisation) is nn.BatchNorm2d else normalisation.act(normalisation.drop(x))


def _in_full_precision(convolution: nn.Module, x: Tensor) -> Tensor:
    """A depthwise convolution in float32 under autocast, while gradients are taken.

    On CPUs oneDNN takes 3 to 8 times as long for the gradients of one in bfloat16.
    """
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return convolution(x)  # type: ignore[no-any-return]
    with torch.autocast("cpu", enabled=False):
        return convolution(x.float()).to(x.dtype)  # type: ignore[no-any-return]


def _view(module: Any, forwards: Mapping[nn.Module, Callable[..., Any]]) -> Any:
    """`module` in which some compute otherwise; whatever holds none of them is shared."""
    children = {name: child if child is None else _view(child, forwards) for name, child in module._modules.items()}
    if module not in forwards and all(children[name] is child for name, child in module._modules.items()):
        return module
    view: Any = copy.copy(module)
    view._modules = children
    if module in forwards:
        view.forward = forwards[module]
    return view
