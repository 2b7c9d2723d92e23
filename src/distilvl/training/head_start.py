"""Heads that begin as the regression from what the untrained towers know to the teacher's rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.batched import Rows, over_rows, over_texts
from distilvl.training.materials import Materials
from distilvl.training.sources.stream import StreamSource

SAMPLE = 2048
"""Images, and captions, that are encoded once more for it."""

_HELD_OUT = 4  # one row in so many chooses the ridge
_RIDGES = tuple(10.0**power for power in range(-5, 2))


@torch.no_grad()
def regress_heads(encoder: DualEncoder, train: Materials | StreamSource, fabric: Fabric, seed: int) -> None:
    """Set FC_v and FC_t to the ridge regressions of the teacher's rows on the pooled rows of the towers as they are.

    Training towers and new heads together distorts pretrained towers, since the first gradients come through heads
    that mean nothing; heads that were fitted first avoid that (Kumar et al., ICLR 2022, LP-FT). Ours are a linear
    layer each and their targets are stored, so the fit has a closed form: one forward pass over a sample, no backward
    pass.

    Args:
        encoder: the student, with linear heads.
        train: the training split in memory, with the teacher's features.
        fabric: where the towers are asked.
        seed: chooses the sample.

    Raises:
        DistilvlError: a stream, or no teacher.
    """
    if isinstance(train, StreamSource):
        raise DistilvlError(
            "training.head_start: regression needs the training images at hand, and shards are streamed.",
            "Set training.head_start=random.",
        )
    if train.teacher is None:
        raise DistilvlError(
            "training.head_start: regression fits the heads to a teacher, and none is named.",
            "Pass --teacher or --features, or set training.head_start=random.",
        )
    random = np.random.default_rng((seed, len(train.tokens)))
    images = random.permutation(train.count)[:SAMPLE] * train.views  # whole images: view 0 of each
    texts = random.permutation(len(train.tokens))[:SAMPLE]
    known = {
        "image": (_image_rows(encoder, train, fabric, images), train.teacher.images[images]),
        "text": (_text_rows(encoder, train, fabric, texts), train.teacher.texts[texts]),
    }
    for modality, (rows, targets) in known.items():
        weight, bias = ridge_regression(torch.from_numpy(rows), targets)
        linear = encoder.head(modality)
        # Of several processes all take the first one's: sums may be rounded differently elsewhere.
        linear.weight.copy_(fabric.broadcast(weight.to(linear.weight), src=0))
        linear.bias.copy_(fabric.broadcast(bias.to(linear.bias), src=0))


def _image_rows(encoder: DualEncoder, train: Materials, fabric: Fabric, rows: npt.NDArray[np.int64]) -> Rows:
    if train.pooled_images is not None:
        return train.pooled_images[rows]
    return over_rows(fabric, encoder.pool_images, train.pixels[rows])


def _text_rows(encoder: DualEncoder, train: Materials, fabric: Fabric, rows: npt.NDArray[np.int64]) -> Rows:
    if train.pooled_texts is not None:
        return train.pooled_texts[rows]
    return over_texts(fabric, encoder, encoder.pool_texts, [train.tokens[row] for row in rows])


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
