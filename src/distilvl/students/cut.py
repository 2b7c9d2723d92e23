"""A tower in two: the lower layers stay as they are and run once, the top ones learn.

    below   pixels, ids -> rows   what the first learning layer reads, beside the part of x that is known by then
    above   rows        -> x      what the head reads

Nothing is known of a tower but the order of its weights: `above` is the tower with a pass-through in the place of each
module that comes before the first learning weight, and shares all others with it. Where both halves do not compute
what the whole does, the tower cannot be cut there, and that is said.
"""

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from distilvl.errors import DistilvlError
from distilvl.students.heads import Head, head_of, is_convolutional
from distilvl.students.quick import folded, is_depthwise, quick

# How transformers, and timm, name the blocks of a tower.
_BLOCK = re.compile(r"\.(?:(?:layers?|blocks?|h|stages)\.|stages_|blocks_|layer)(\d+)\.")
_CLOSE = 1e-3  # of the largest output: how far both halves together may be off the whole


def _first_argument(*args: Any, **kwargs: Any) -> Any:
    """What a layer reads from the one before: the first numbers that it is given, ids and masks not counted."""
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return next((value for value in given if value.is_floating_point()), given[0] if given else None)


def _passed(module: nn.Module) -> nn.Module:
    """`module` as one that gives its first argument back; towers look at weights of their first layers."""
    view: Any = copy.copy(module)
    view.forward = _first_argument
    view._forward_hooks, view._forward_pre_hooks = OrderedDict(), OrderedDict()
    return view  # type: ignore[no-any-return]


def layers_of(tower: nn.Module) -> list[list[nn.Parameter]]:
    """Its learning weights layer by layer: embeddings, then blocks; what follows is the last one's."""
    found: dict[int, list[nn.Parameter]] = {}
    depth = 0  # weights are named in the order in which they are used
    for name, parameter in tower.named_parameters():
        block = _BLOCK.search(name)
        depth = int(block[1]) + 1 if block else depth
        if parameter.requires_grad:
            found.setdefault(depth, []).append(parameter)
    return [found[depth] for depth in sorted(found)]


def depthwise_kernels(tower: nn.Module) -> list[nn.Parameter]:
    """The weights of its depthwise convolutions.

    Of a top that learns they are one weight in a hundred, and their gradients a third of a step on a CPU; a student
    whose kernels stay as they were pretrained is as good (docs/recipes.md).
    """
    found = [layer for layer in tower.modules() if isinstance(layer, nn.Conv2d) and is_depthwise(layer)]
    return [cast(nn.Parameter, layer.weight) for layer in found]


def stop_learning(layers: Iterable[Iterable[nn.Parameter]]) -> None:
    """From now on these weights stay as they are."""
    for layer in layers:
        for parameter in layer:
            parameter.requires_grad_(False)


class Cut:
    """The image route of a student in two, before the module that begins with the weight `learning`.

    A row, (R,), is the input of that module, flat, and then those columns of x that come from stages before it.

    Args:
        modules: the route, from tower to last.
        learning: the first weight of the tower that learns.
        features: a few images as the route takes them, to try both halves on.

    Raises:
        DistilvlError: the tower is no chain of layers, or cannot be cut at that one.
    """

    def __init__(self, modules: Any, learning: nn.Parameter, features: dict[str, Any]) -> None:
        self._whole = head_of(modules)
        self._first = _first_module(self._whole.tower, learning, "image")
        top = quick(_top(modules, self._first)[0])
        self._above: Head = head_of(top)
        self._channels_last = is_convolutional(self._whole.tower)
        self.shape: tuple[int, ...] = ()  # of that module's input, without the images
        self.known = 0  # columns of x that do not come from above
        self._try(features)
        plain, rows = self._above, self.below(features)
        self._above = head_of(folded(top, partial(self.above, rows)))
        if not self._is_whole(features):
            self._above = plain

    @property
    def width(self) -> int:
        """R."""
        return math.prod(self.shape) + self.known

    @torch.no_grad()
    def below(self, features: dict[str, Any]) -> Tensor:
        """Images as the tower takes them to rows (n, R)."""
        inputs, x = self._run(features)
        return torch.cat([inputs.flatten(1).float(), x[:, : self.known]], dim=1)

    def above(self, rows: Tensor) -> Tensor:
        """Rows (n, R) to x (n, C), without dropout and with the statistics that the tower was pretrained with."""
        size = math.prod(self.shape)
        rows = rows.float()  # they are stored in half precision
        inputs = rows[:, :size].reshape(len(rows), *self.shape)
        if self._channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        x = self._above.pool({"pixel_values": inputs, "modality": "image"})
        return torch.cat([rows[:, size:], x[:, x.shape[1] - (self._whole.in_features - self.known) :]], dim=1)

    def _run(self, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return _read_by(self._first, self._whole, features)

    @torch.no_grad()
    def _try(self, features: dict[str, Any]) -> None:
        """Find shapes, and see that both halves together are the whole."""
        try:
            inputs, expected = self._run(features)
            self.shape = tuple(inputs.shape[1:])
            given = self._above.pool({**features, "pixel_values": inputs})
            self.known = expected.shape[1] - given.shape[1]
            is_whole = self._is_whole(features)
        except Exception:  # a tower that is no chain of layers raises anything
            is_whole = False
        if not is_whole:
            raise _refused("image")

    @torch.no_grad()
    def _is_whole(self, features: dict[str, Any]) -> bool:
        expected = self._run(features)[1]
        found = self.above(self.below(features))
        return torch.allclose(found, expected, rtol=0, atol=_CLOSE * float(expected.abs().max()))


class TextCut:
    """The text route of a student in two, before the module that begins with the weight `learning`.

    What is stored of a text is the input of that module, (L, H) for its L tokens.

    Args:
        modules: the route, from tower to last.
        learning: the first weight of the tower that learns.
        features: a few texts as the route takes them, to try both halves on.

    Raises:
        DistilvlError: the tower is no chain of layers, or cannot be cut at that one.
    """

    def __init__(self, modules: Any, learning: nn.Parameter, features: dict[str, Any]) -> None:
        self._whole = head_of(modules)
        self._first = _first_module(self._whole.tower, learning, "text")
        self._above: Head = head_of(_top(modules, self._first)[0])
        self.size = 0  # H
        self.name = next(name for name, module in self._whole.tower.named_modules() if module is self._first)
        self._try(features)

    @torch.no_grad()
    def below(self, features: dict[str, Any]) -> Tensor:
        """Texts as the tower takes them to outputs of the lower layers (n, L, H)."""
        return _read_by(self._first, self._whole, features)[0].float()

    def above(self, outputs: Tensor, attention_mask: Tensor) -> Tensor:
        """Outputs (n, L, H) with their mask (n, L) to x (n, C), without dropout."""
        return self._above.pool({"inputs_embeds": outputs, "attention_mask": attention_mask, "modality": "text"})

    @torch.no_grad()
    def _try(self, features: dict[str, Any]) -> None:
        try:
            expected, below = self._whole.pool(features), self.below(features)
            self.size = below.shape[2]
            # What stands behind a text is not kept, and must not matter.
            kept = below * features["attention_mask"][..., None]
            found = self.above(kept, features["attention_mask"])
            is_whole = torch.allclose(found, expected, rtol=0, atol=_CLOSE * float(expected.abs().max()))
        except Exception:  # a tower that is no chain of layers raises anything
            is_whole = False
        if not is_whole:
            raise _refused("text")


def _read_by(module: nn.Module, whole: Head, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What `module` reads while `whole` makes x of `features`, and x."""
    found: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(_first_argument(*args, **kwargs))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        x = whole.pool(dict(features))
    finally:
        handle.remove()
    return found[0], x


def _first_module(tower: nn.Module, learning: nn.Parameter, modality: str) -> nn.Module:
    """The largest module whose first weight is `learning`: it and what follows it, in order of use, learn."""
    for module in tower.modules():
        if module is not tower and next(module.parameters(), None) is learning:
            return module
    raise _refused(modality)


def _refused(modality: str) -> DistilvlError:
    what = f"the {modality} tower cannot be cut there: its layers are no chain, or a stage below is read above."
    remedy = f"Raise student.{modality}.trainable_layers, or leave it out to train the whole tower."
    return DistilvlError(what, remedy)


def _top(module: Any, first: nn.Module) -> tuple[Any, bool]:
    """`module` with pass-throughs before `first`, which with all that follows is shared; whether `first` is in it."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    for name, child in module._modules.items():
        if child is first:
            return view, True
        inside, found = (child, False) if child is None else _top(child, first)
        view._modules[name] = inside if found or child is None else _passed(child)
        if found:
            return view, True
    return view, False
