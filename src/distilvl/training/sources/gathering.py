"""Rows of materials in memory as tensors on the device: what every source that has materials does with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distilvl.students.dual_encoder import DualEncoder
from distilvl.training.distributed import Share
from distilvl.training.materials import Materials

Rows = npt.NDArray[np.int64]
# Part of the views' seed, beside the run's: the order of an epoch's images comes from the seed and the epoch alone.
_VIEWS = 2


def drawn_views(train: Materials, seed: int, epoch: int) -> Rows | None:
    """Which view stands for each image in this epoch, (n,); nothing where there are only whole images."""
    if train.views == 1:
        return None
    return np.random.default_rng((seed, _VIEWS, epoch)).integers(0, train.views, train.count)


def gather_images(
    train: Materials, images: Rows, views: Rows | None, device: torch.device, share: Share
) -> tuple[Tensor, Tensor | None]:
    """What the student is given of the share of these n images, and the teacher's rows of all, (n, D), where known.

    Of each image it is the view in `views`, (n,), or the whole one without.
    """
    rows = images * train.views if views is None else images * train.views + views
    u_image = None if train.teacher is None else train.teacher.images.on(device, rows)
    return torch.from_numpy(train.images[rows[share.rows(len(rows))]]).to(device), u_image


def gather_texts(
    train: Materials, encoder: DualEncoder, rows: Rows, device: torch.device, share: Share
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of the share of these n rows: token ids, padded by `encoder`, or a frozen tower's rows; the mask of token ids.

    And the teacher's of all, (n, D), where known.
    """
    mask, own = None, rows[share.rows(len(rows))]
    if train.pooled_texts is None:
        texts, mask = encoder.pad([train.tokens[row] for row in own])
    else:
        texts = torch.from_numpy(train.pooled_texts[own])
    u_text = None if train.teacher is None else train.teacher.texts.on(device, rows)
    return texts.to(device), None if mask is None else mask.to(device), u_text
