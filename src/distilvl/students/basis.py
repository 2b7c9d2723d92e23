"""The teacher's space turned to its principal axes, for students that are used at a part of their width."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distilvl.features.atomic import give_usual_modes

BASIS_NAME = "teacher_basis.safetensors"


def principal_basis(images: Iterable[Tensor], texts: Iterable[Tensor]) -> Tensor:
    """The orthogonal R (D, D) whose columns are the axes of most to least squared length of the teacher's rows.

    Turned rows `u R` have the dot products of `u`: rankings, and every loss at the full width, stay as they are; the
    first d columns are the d-dimensional space that keeps most of the rows' length. The mean is not taken off,
    since a cosine counts from the origin. Both modalities weigh the same.

    Args:
        images: u^v (n, D), some rows at a time.
        texts: u^t (m, D), likewise.
    """
    _, axes = torch.linalg.eigh(_second_moment(images) + _second_moment(texts))
    axes = axes.flip(1)
    # The sign of an axis is arbitrary; with its largest entry positive it is the same on every machine.
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    basis: Tensor = axes * largest.sign()
    return basis.float()


def _second_moment(blocks: Iterable[Tensor]) -> Tensor:
    """The mean of u u^T over all rows, (D, D) float64."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for rows in blocks:
        total, count = total + rows.double().T @ rows.double(), count + len(rows)
    return total / count


def save_basis(basis: Tensor, student: Path) -> None:
    """Keep R in the student's folder: `u R` is what the student's rows are to be compared with."""
    save_file({"basis": basis.contiguous()}, student / BASIS_NAME)
    give_usual_modes(student / BASIS_NAME)


def load_basis(student: Path) -> Tensor | None:
    """R of a student's folder, (D, D); none where the student learnt the teacher's own space."""
    path = student / BASIS_NAME
    return load_file(path)["basis"] if path.is_file() else None
