"""Losses are computed in float32, or in float64 where an input is, whatever precision the towers ran in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeGuard

import torch
from torch import Tensor

P = ParamSpec("P")


def in_full_precision(forward: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Widen the floating tensors among a loss's arguments and switch autocast off while it runs.

    bfloat16 keeps 8 bits: an error of 0.002 in a cosine, 0.04 in a logit at temperature 0.05. Autocast has to
    be off as well, since it would narrow the matrix products again.
    """

    @wraps(forward)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        floats = [x for x in (*args, *kwargs.values()) if _is_float(x)]
        wide = torch.float64 if any(x.dtype == torch.float64 for x in floats) else torch.float32
        with torch.autocast(floats[0].device.type, enabled=False):
            widened: Any = [x.to(wide) if _is_float(x) else x for x in args]
            named: Any = {name: x.to(wide) if _is_float(x) else x for name, x in kwargs.items()}
            return forward(*widened, **named)

    return wrapper


def _is_float(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()
