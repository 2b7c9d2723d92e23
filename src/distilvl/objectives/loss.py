"""What every loss is built on: the batch that it reads, its base class, float32 arithmetic, masks, soft targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.objectives.queue import NO_QUEUE, Negatives
from distilvl.objectives.registry import Registry, Settings

PAPER_LOSSES = ("cd", "fd", "sd", "hnd")


@dataclass(frozen=True)
class Batch:
    """What a loss may read at a step: N images and their texts; embeddings are L2-normalised (eq. 4), of dimension D.

    Without pairs there are M texts. Items of one image are never each other's negatives.
    """

    z_image: Tensor  # student embeddings z^v, (N, D)
    z_text: Tensor  # z^t, (N, D), or (M, D) without pairs
    u_image: Tensor  # teacher features u^v, (N, D); (0, D) in a run without a teacher
    u_text: Tensor  # u^t, likewise
    ids: Tensor  # g(i), which image item i belongs to, (N,) int64 >= 0
    text_ids: Tensor | None = None  # None where row i of both modalities is a pair, otherwise the texts' images, (M,)
    image_queue: Negatives = NO_QUEUE  # q^v, teacher features of earlier steps; empty unless a chosen loss reads them
    text_queue: Negatives = NO_QUEUE  # q^t

    @property
    def embeddings(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_image, z_text, u_image, u_text."""
        return self.z_image, self.z_text, self.u_image, self.u_text

    def cosines(self) -> tuple[Tensor, Tensor]:
        """Cosines of all images with all texts (N, N), the student's and the teacher's."""
        return self.z_image @ self.z_text.T, self.u_image @ self.u_text.T

    @property
    def ids_of_texts(self) -> Tensor:
        """The image of each text, whether texts and images are pairs or not."""
        return self.ids if self.text_ids is None else self.text_ids


class TemperatureSettings(Settings):
    """Of a loss that divides cosines by a temperature."""

    temperature: float = Field(0.05, gt=0, description="tau")


class Loss(nn.Module):
    """A term L_m of the objective: `loss(batch)` is a 0-d tensor.

    A subclass is all that a new loss needs: a `name`, the class variables below where they differ, and
    `forward(batch)`; see docs/losses.md. It computes in float32, or float64 if one of the embeddings is, whatever the
    run's precision: bfloat16 has an error of 0.002 in a cosine, 0.04 in a logit at temperature 0.05.
    """

    name: ClassVar[str] = ""  # in `objective.losses` and metrics.jsonl
    label: ClassVar[str] = ""  # what charts call it
    formula: ClassVar[str] = ""  # what it computes, in one line, for documents
    settings: ClassVar[type[Settings]] = Settings  # of `objective.NAME`; its fields are the class's arguments
    section: ClassVar[str] = ""  # where the settings stand, if not under `name`; several losses may share one
    needs_teacher: ClassVar[bool] = True  # compares with teacher features
    needs_pairs: ClassVar[bool] = True  # row i of both modalities must be a pair
    reads_queue: ClassVar[bool] = False  # compares with the queues of teacher features
    learns_temperature: ClassVar[bool] = False  # its `temperature` may also be a `LearnedTemperature`

    @classmethod
    def build(cls, settings: Settings) -> Loss:
        """The loss with these settings, an instance of `cls.settings`."""
        return cls(**dict(settings))

    def __call__(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of a `Batch`; or of the tensors that `of_tensors` takes, for whoever has no batch."""
        if tensors and isinstance(tensors[0], Batch):
            return _in_full_precision(lambda **held: nn.Module.__call__(self, Batch(**held)), (), vars(tensors[0]))
        return _in_full_precision(self.of_tensors, tensors, named)

    def of_tensors(self, *tensors: Any, **named: Any) -> Tensor:
        """The loss of z_image, z_text, u_image, u_text and ids, as in `Batch`."""
        return self.forward(Batch(*tensors, **named))

    def forward(self, batch: Batch) -> Tensor:
        """L_m, 0-d, with its graph to the student embeddings."""
        raise NotImplementedError


def _in_full_precision(compute: Callable[..., Tensor], given: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
    """`compute` with the floating tensors widened, and autocast off: it would narrow the matrix products again."""
    floats = [x for x in (*given, *named.values()) if _is_float(x)]
    wide = torch.float64 if any(x.dtype == torch.float64 for x in floats) else torch.float32
    widened = [x.to(wide) if _is_float(x) else x for x in given]
    with torch.autocast(floats[0].device.type, enabled=False):
        return compute(*widened, **{name: x.to(wide) if _is_float(x) else x for name, x in named.items()})


def _is_float(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()


class TemperatureLoss(Loss):
    """A loss whose one setting is the temperature."""

    settings = TemperatureSettings

    def __init__(self, temperature: float | LearnedTemperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature


LOSSES = Registry("loss", Loss, "distilvl.objectives", "distilvl.losses", PAPER_LOSSES)  # all losses by name


def label_of(name: str) -> str:
    """What charts call a loss; its name where the package that added it is gone, or it has no label."""
    try:
        return LOSSES[name].label or name
    except DistilvlError:
        return name


def same_image(ids: Tensor, other_ids: Tensor) -> Tensor:
    """`g(i) == g(j)` for ids (N,) and (M,): bool (N, M)."""
    return ids[:, None] == other_ids[None, :]


def in_batch_negatives(ids: Tensor, mask_false_negatives: bool = True) -> Tensor:
    """Bool (N, N), true where column j is a negative of row i: `g(j) != g(i)`, or every `j != i` as published."""
    if mask_false_negatives:
        return ~same_image(ids, ids)
    return ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)


def own_and_negatives(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits (N, N), divided by tau already, with minus infinity where column j is another row of image i."""
    own = torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    return logits.masked_fill(~(own | in_batch_negatives(ids)), -torch.inf)


def cross_entropy_of_pairs(logits: Tensor) -> Tensor:
    """mean_i -log softmax_j(logits_i)_i of logits (N, N), 0-d."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i KL(softmax(teacher_i) || softmax(student_i)) of logits (N, M), 0-d and >= 0.

    Items of the anchor's own image stay: the soft target gives them the probability that the teacher sees in them.
    """
    student, teacher = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def cross_entropy(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """mean_i -sum_j softmax(teacher_i)_j log softmax(student_i)_j of logits (N, M), 0-d."""
    return F.cross_entropy(student_logits, F.softmax(teacher_logits, dim=1))


LOWEST = 0.01  # CLIP's bound: logits are scaled by at most 100


class LearnedTemperature(nn.Module):
    """tau = exp(log_tau), at least `LOWEST`; divides like a number. `start` is tau > 0 before the first step."""

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
