"""What several losses share: float32 arithmetic, masks of non-matching pairs, learnt temperatures, soft targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_image(ids: Tensor, other_ids: Tensor) -> Tensor:
    """`g(i) == g(j)` for ids (N,) and (M,): bool (N, M)."""
    return ids[:, None] == other_ids[None, :]


def in_batch_negatives(ids: Tensor, mask_false_negatives: bool = True) -> Tensor:
    """Bool (N, N), true where column j is a negative of row i.

    With `mask_false_negatives` that is `g(j) != g(i)`; without, every `j != i`, as in the published code.
    """
    if mask_false_negatives:
        return ~same_image(ids, ids)
    return ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)


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


LOWEST = 0.01
"""CLIP's bound: logits are scaled by at most 100."""


class LearnedTemperature(nn.Module):
    """tau = exp(log_tau), at least `LOWEST`; divides like a number.

    Args:
        start: tau > 0 before the first step.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_tau = nn.Parameter(torch.tensor(float(start)).log())

    @property
    def value(self) -> Tensor:
        """tau, 0-d."""
        # Not in the graph: below the bound the gradient would be 0, and tau would stay there for good.
        with torch.no_grad():
            self.log_tau.clamp_(min=math.log(LOWEST))
        return self.log_tau.exp()

    def __rtruediv__(self, logits: Tensor) -> Tensor:
        """`logits / self`."""
        return logits / self.value


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i KL(softmax(teacher_i) || softmax(student_i)) of logits (N, M), 0-d and >= 0.

    Rows of the anchor's own image stay among the candidates: a soft target gives them the probability the
    teacher sees in them, so they are nobody's negatives by decree.
    """
    student, teacher = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i -sum_j softmax(teacher_i)_j log softmax(student_i)_j of logits (N, M), 0-d.

    The divergence above plus the teacher's mean entropy, which no student changes.
    """
    return F.cross_entropy(student_logits, F.softmax(teacher_logits, dim=1))
