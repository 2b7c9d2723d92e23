"""Heads that begin as the regression from what the untrained towers know to the teacher's rows."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.batch import StepInputs
from distilvl.training.distributed import gather_rows
from distilvl.training.sources import BatchSource

SAMPLE = 2048
"""Images, and at least as many texts, that are encoded once more for it."""

_HELD_OUT = 4  # one row in so many chooses the ridge
_RIDGES = tuple(10.0**power for power in range(-5, 2))


@torch.no_grad()
def regress_heads(encoder: DualEncoder, source: BatchSource, fabric: Fabric) -> None:
    """Set FC_v and FC_t to the ridge regressions of the teacher's rows on the pooled rows of the towers as they are.

    Training towers and new heads together distorts pretrained towers, since the first gradients come through heads
    that mean nothing; heads that were fitted first avoid that (Kumar et al., ICLR 2022, LP-FT). Ours are a linear
    layer each and their targets are stored, so the fit has a closed form: one forward pass over a sample, no backward
    pass. See docs/design/head-start.md.

    Args:
        encoder: the student, with linear heads.
        source: its batches; those with which the first epoch begins are taken.
        fabric: where the towers are asked; of several processes each encodes its share.

    Raises:
        DistilvlError: the batches have no teacher's rows, or rows of another width than the student's.
    """
    images: list[tuple[Tensor, Tensor]] = []
    texts: list[tuple[Tensor, Tensor]] = []
    for inputs in source.epoch(0):
        if inputs.u_image is None or inputs.u_text is None:
            raise DistilvlError(
                "training.head_init=ridge fits the heads to a teacher, and none is named.",
                "Pass --teacher or --features, or set training.head_init=random.",
            )
        have, width = inputs.u_image.shape[1], encoder.head("image").out_features
        if have != width:
            raise DistilvlError(
                f"training.head_init=ridge fits heads of width {width} to a teacher of width {have}.",
                "Leave student.dim unset, or set training.head_init=random.",
            )
        pooled_images, pooled_texts = _pooled(encoder, inputs, fabric)
        images.append((pooled_images, inputs.u_image))
        texts.append((pooled_texts, inputs.u_text))
        if sum(len(rows) for rows, _ in images) >= SAMPLE:
            break
    for modality, known in (("image", images), ("text", texts)):
        weight, bias = ridge_regression(*(torch.cat(rows).cpu() for rows in zip(*known, strict=True)))
        linear = encoder.head(modality)
        # Of several processes all take the first one's: sums may be rounded differently elsewhere.
        linear.weight.copy_(fabric.broadcast(weight.to(linear.weight)))
        linear.bias.copy_(fabric.broadcast(bias.to(linear.bias)))


def _pooled(encoder: DualEncoder, inputs: StepInputs, fabric: Fabric) -> tuple[Tensor, Tensor]:
    """What the towers give their heads for the whole batch, float32: (B, p) and (N, q)."""
    images, texts = inputs.images, inputs.texts
    with fabric.autocast():
        if not images.is_floating_point():
            images = encoder.pool_images(images)
        if not texts.is_floating_point():
            assert inputs.attention_mask is not None  # it comes with token ids
            texts = encoder.pool_texts(texts, inputs.attention_mask)
    counts = len(inputs.ids), len(inputs.text_ids)
    image_rows, text_rows = (
        gather_rows(fabric, rows.float(), n) for rows, n in zip((images, texts), counts, strict=True)
    )
    return image_rows, text_rows


def ridge_regression(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """W (D, p) and b (D,) that minimise mean |x W^T + b - u|^2 + l |W|^2, in float64.

    l is the one of a few multiples of the rows' mean variance whose predictions have the largest mean cosine with the
    targets on every fourth row, when fitted on the others; the answer is then fitted on all.

    Args:
        rows: x, (n, p).
        targets: u, (n, D).
    """
    x, u = rows.double(), targets.double()
    held_out = torch.arange(len(x)) % _HELD_OUT == _HELD_OUT - 1
    ridge = _RIDGES[0]
    if held_out.any():
        fits = [_solve(x[~held_out], u[~held_out], ridge) for ridge in _RIDGES]
        cosines = [F.cosine_similarity(x[held_out] @ w.T + b, u[held_out]).mean() for w, b in fits]
        ridge = _RIDGES[int(torch.stack(cosines).argmax())]
    return _solve(x, u, ridge)


def _solve(x: Tensor, u: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    mean_x, mean_u = x.mean(dim=0), u.mean(dim=0)
    centred = x - mean_x
    covariance = centred.T @ centred / len(x)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(covariance, centred.T @ (u - mean_u) / len(x)).T
    return weight, mean_u - weight @ mean_x
