"""How the weights begin and learn: ridge initialisation of the heads, AdamW and its rates, the running mean (EMA)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from distilvl.config import OptimizerConfig, ScheduleConfig, StepSchedule
from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import gather_rows
from distilvl.training.sources import BatchSource, StepInputs


def build_optimizer(encoder: DualEncoder, config: OptimizerConfig, others: Iterable[nn.Parameter] = ()) -> AdamW:
    """AdamW; each group keeps its own base rate as `base_lr`.

    Layers of towers that learn are groups named `towers`, the lowest first, with rates that fall by `layer_decay` from
    each layer to the one below (Clark et al. 2020; BEiT), one group when it is 1. What lies behind them is `heads`;
    `others`, weights of the objective, are `objective`, with the heads' rate and no weight decay.
    """
    head_lr = config.lr if config.head_lr is None else config.head_lr
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}  # always one group at least
    for layers in encoder.tower_layers():
        for depth, layer in enumerate(reversed(layers)):
            by_factor.setdefault(config.layer_decay**depth, []).extend(layer)
    rates = sorted(by_factor.items())
    groups: list[dict[str, Any]] = [{"name": "towers", "params": some, "lr": config.lr * by} for by, some in rates]
    groups.append({"name": "heads", "params": encoder.heads(), "lr": head_lr})
    if others := list(others):
        groups.append({"name": "objective", "params": others, "lr": head_lr, "weight_decay": 0.0})
    for group in groups:
        group["base_lr"] = group["lr"]
    return AdamW(groups, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def rate_factor(step: int, total: int, config: ScheduleConfig) -> float:
    """What the base rates are multiplied with at `step` of `total` (steps count from 0); in (0, 1].

    After a linear warm-up, `step`: times gamma at each milestone (the paper: 0.1 at half time); `cosine`: to zero.
    """
    warmup = int(config.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if isinstance(config, StepSchedule):
        passed = sum(step >= round(milestone * total) for milestone in config.milestones)
        return config.gamma**passed
    # The divisor is one more than the last step's index, so that the last step still learns.
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def average_of(encoder: nn.Module, decay: float) -> AveragedModel:
    """A copy of `encoder` whose weights follow it when `update_parameters(encoder)` is called after each step.

        mean <- d mean + (1 - d) weights        with d = min(decay, (1 + n) / (10 + n)) after n updates

    The smaller d of the first steps lets the mean forget the untrained weights. Buffers are copied.
    """

    @torch.no_grad()
    def update(means: Sequence[Tensor], weights: Sequence[Tensor], count: Any) -> None:
        n = float(count)
        torch._foreach_lerp_(list(means), list(weights), 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(encoder, multi_avg_fn=update)


SAMPLE = 2048  # images, and at least as many texts, that ridge initialisation encodes once more

_HELD_OUT = 4  # one row in so many chooses the ridge
_RIDGES = tuple(10.0**power for power in range(-5, 2))


@torch.no_grad()
def initialise_heads(encoder: DualEncoder, source: BatchSource, fabric: Fabric) -> None:
    """Ridge initialisation: set FC_v and FC_t to the ridge regressions of teacher features on the towers' outputs.

    As LP-FT (Kumar et al., ICLR 2022), in closed form: docs/design/head-start.md. The sample is what the first epoch
    begins with; of several processes each encodes its share. `DistilvlError` where the batches have no teacher
    features, or those of another dimension than the student's.
    """
    known: dict[str, list[tuple[Tensor, Tensor]]] = {"image": [], "text": []}
    for inputs in source.epoch(0):
        if inputs.u_image is None or inputs.u_text is None:
            remedy = "Pass --teacher or --features, or set training.head_init=random."
            raise DistilvlError("training.head_init=ridge fits the heads to a teacher, and none is named.", remedy)
        have, dim = inputs.u_image.shape[1], encoder.head("image").out_features
        if have != dim:
            problem = f"training.head_init=ridge fits heads of dimension {dim} to a teacher of dimension {have}."
            raise DistilvlError(problem, "Leave student.dim unset, or set training.head_init=random.")
        images, texts = _pooled(encoder, inputs, fabric)
        known["image"].append((images, inputs.u_image))
        known["text"].append((texts, inputs.u_text))
        if sum(len(rows) for rows, _ in known["image"]) >= SAMPLE:
            break
    for modality, pairs in known.items():
        head = encoder.head(modality)
        rows, targets = (torch.cat(part).cpu() for part in zip(*pairs, strict=True))
        weight, bias = ridge_regression(rows, targets, intercept=head.bias is not None)
        # Of several processes all take the first one's: sums may be rounded differently elsewhere.
        head.set(*(fabric.broadcast(found.to(head.weight)) for found in (weight, bias)))


def _pooled(encoder: DualEncoder, inputs: StepInputs, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """What the towers give their heads for the whole batch, float32: (B, p) and (N, q)."""
    images, texts = inputs.images, inputs.texts
    with fabric.autocast():
        is_stored = images.is_floating_point()
        images = encoder.pool_stored("image", images) if is_stored else encoder.pool_images(images)
        if texts.is_floating_point():
            texts = encoder.pool_stored("text", texts, inputs.attention_mask)
        else:
            assert inputs.attention_mask is not None  # it comes with token ids
            texts = encoder.pool_texts(texts, inputs.attention_mask)
    image_rows = gather_rows(fabric, images.float(), len(inputs.ids))
    return image_rows, gather_rows(fabric, texts.float(), len(inputs.text_ids))


def ridge_regression(rows: Tensor, targets: Tensor, *, intercept: bool = True) -> tuple[Tensor, Tensor]:
    """W (D, p) and b (D,) that minimise mean |x W^T + b - u|^2 + l |W|^2, in float64, for x (n, p) and u (n, D).

    Without `intercept` b is 0. l is the one of a few multiples of the rows' mean variance whose predictions have the
    largest mean cosine with the targets on every fourth row, when fitted on the others; the map is then fitted on all.
    """
    x, u = rows.double(), targets.double()
    held_out = torch.arange(len(x)) % _HELD_OUT == _HELD_OUT - 1
    ridge = _RIDGES[0]
    if held_out.any():
        fits = [_solve(x[~held_out], u[~held_out], ridge, intercept) for ridge in _RIDGES]
        cosines = [F.cosine_similarity(x[held_out] @ w.T + b, u[held_out]).mean() for w, b in fits]
        ridge = _RIDGES[int(torch.stack(cosines).argmax())]
    return _solve(x, u, ridge, intercept)


def _solve(x: Tensor, u: Tensor, ridge: float, intercept: bool) -> tuple[Tensor, Tensor]:
    mean_x, mean_u = x.mean(dim=0) * intercept, u.mean(dim=0) * intercept
    centred = x - mean_x
    covariance = centred.T @ centred / len(x)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(covariance, centred.T @ (u - mean_u) / len(x)).T
    return weight, mean_u - weight @ mean_x
