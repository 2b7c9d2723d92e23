from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distilvl.errors import DistilvlError
from distilvl.students.folder import BASIS_NAME, read_basis
from distilvl.students.storage import load_basis, principal_basis, save_basis


def _rows(count: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return F.normalize(torch.randn(count, 6) * torch.tensor([0.1, 3.0, 0.2, 1.0, 0.05, 2.0]) + 0.5, dim=1)


def test_turning_keeps_all_dot_products_and_puts_the_longest_axes_first() -> None:
    images, texts = _rows(200, 0), _rows(300, 1)
    basis = principal_basis([images], [texts])
    torch.testing.assert_close(basis.T @ basis, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close((images @ basis) @ (texts @ basis).T, images @ texts.T, atol=1e-5, rtol=0)
    kept = [float(((rows @ basis) ** 2).mean(dim=0)[k]) for k in range(6) for rows in (torch.cat([images, texts]),)]
    mean = ((images @ basis) ** 2).mean(dim=0) + ((texts @ basis) ** 2).mean(dim=0)
    assert (mean.diff() <= 1e-6).all(), kept


def test_is_numpys_eigenbasis_of_the_second_moments() -> None:
    images, texts = _rows(50, 2), _rows(70, 3)
    x, y = images.double().numpy(), texts.double().numpy()
    values, axes = np.linalg.eigh(x.T @ x / 50 + y.T @ y / 70)
    expected = axes[:, np.argsort(-values)]
    found = principal_basis([images], [texts]).double().numpy()
    np.testing.assert_allclose(np.abs((expected * found).sum(axis=0)), 1, atol=1e-6)
    assert (found[np.abs(found).argmax(axis=0), range(6)] > 0).all()


def test_is_kept_beside_the_student(tmp_path: Path) -> None:
    assert load_basis(tmp_path) is None
    basis = principal_basis([_rows(50, 4)], [_rows(50, 5)])
    save_basis(basis, tmp_path)
    found = load_basis(tmp_path)
    assert found is not None
    assert torch.equal(found, basis)


def test_a_damaged_basis_is_told(tmp_path: Path) -> None:
    assert read_basis(tmp_path) is None
    save_basis(torch.ones(3, 4), tmp_path)
    with pytest.raises(DistilvlError, match=r"is damaged: the shape \(3, 4\)\. Copy"):
        read_basis(tmp_path)
    (tmp_path / BASIS_NAME).write_bytes(b"nothing")
    with pytest.raises(DistilvlError, match="is damaged"):
        read_basis(tmp_path)
