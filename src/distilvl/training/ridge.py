"""Ridge regression from sums, which add up over blocks, processes and machines, and grow with width, not with data.

    S = (n, sum x, sum u, X^T X, X^T U)         of rows x (p,) with targets u (q,), in float64

All that a linear map needs to know of the data is in S, so that ridges, targets and columns are chosen, and chosen
again, without reading the data again. Hoerl & Kennard (1970); centring and the held-out choice are usual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse

Doubles = npt.NDArray[np.float64]
Columns = npt.NDArray[np.int64] | slice
_BLOCK = 4096  # rows that are widened to float64 at a time


@dataclass
class RidgeSums:
    """The sums of n rows x (p,) and their targets u (q,)."""

    count: Doubles  # n, ()
    x: Doubles  # (p,)
    u: Doubles  # (q,)
    xx: Doubles  # (p, p)
    xu: Doubles  # (p, q)

    @classmethod
    def zeros(cls, p: int, q: int) -> RidgeSums:
        """Of no rows."""
        return cls(np.zeros(()), np.zeros(p), np.zeros(q), np.zeros((p, p)), np.zeros((p, q)))

    def add(self, rows: npt.NDArray[Any] | scipy.sparse.csr_matrix, targets: npt.NDArray[Any]) -> None:
        """Take in rows (n, p), dense or sparse, and their targets (n, q)."""
        for start in range(0, rows.shape[0], _BLOCK):
            x = rows[start : start + _BLOCK].astype(np.float64)
            u = targets[start : start + _BLOCK].astype(np.float64)
            product: Any = x.T @ x
            self.xx += product.toarray() if scipy.sparse.issparse(product) else product
            self.xu += x.T @ u
            self.x += np.asarray(x.sum(axis=0)).ravel()
            self.u += u.sum(axis=0)
            self.count += x.shape[0]

    def __add__(self, other: RidgeSums) -> RidgeSums:
        return RidgeSums(*(one + two for one, two in zip(self.parts, other.parts, strict=True)))

    @property
    def parts(self) -> tuple[Doubles, ...]:
        """All of it, in the order of the fields, as it travels between processes."""
        return self.count, self.x, self.u, self.xx, self.xu

    def columns(self, columns: Columns) -> RidgeSums:
        """The sums of the same rows with only these of their p columns."""
        return RidgeSums(self.count, self.x[columns], self.u, self.xx[columns][:, columns], self.xu[columns])


@dataclass(frozen=True)
class Affine:
    """u = W x + b, with W (q, p) and b (q,)."""

    weight: Doubles
    bias: Doubles

    def __call__(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(n, p) to (n, q)."""
        found = rows @ self.weight.T.astype(np.float32) + self.bias.astype(np.float32)
        return np.asarray(found, dtype=np.float32)


def solve_affine(sums: RidgeSums, ridges: Iterable[float], scale: float = 0.5) -> list[Affine]:
    """For each ridge l the W and b that minimise sum |W x + b - u|^2 + l c |W diag(s^scale)|^2; b is free.

    `scale` says what the penalty sees: columns divided by their standard deviation s (1), which makes all columns
    equal; by its root (0.5), where columns that vary more count more; or as they are (0). c, the mean of
    s^(2 - 2 scale), makes the same l mean the same for each of them, and for features of any unit.
    """
    mean_x, mean_u = sums.x / sums.count, sums.u / sums.count
    covariance = sums.xx - sums.count * np.outer(mean_x, mean_x)
    deviation = np.sqrt(np.clip(np.diag(covariance) / sums.count, 0, None))
    constant = deviation <= 1e-6 * max(float(deviation.max(initial=0)), 1e-30)
    divisor = np.where(constant, np.inf, np.where(constant, 1, deviation) ** scale)
    gram = covariance / divisor[:, None] / divisor
    cross = (sums.xu - sums.count * np.outer(mean_x, mean_u)) / divisor[:, None]
    unit = float(np.mean((deviation / divisor) ** 2)) or 1.0
    found = []
    for ridge in ridges:
        weight = (_solve(gram, np.full(len(gram), ridge * unit), cross) / divisor[:, None]).T
        found.append(Affine(weight, mean_u - weight @ mean_x))
    return found


def solve_linear(sums: RidgeSums, ridge: Doubles) -> Doubles:
    """The W^T (p, q) that minimises sum |W x - u|^2 + sum_j ridge[j] |W_j|^2: nothing is centred, each column has its
    own ridge."""
    return _solve(sums.xx, ridge, sums.xu)


def _solve(gram: Doubles, ridge: Doubles, cross: Doubles) -> Doubles:
    wanted = gram.copy()
    wanted[np.diag_indices_from(wanted)] += np.maximum(ridge, 1e-12 * max(float(np.trace(gram)), 1e-30))
    factor = scipy.linalg.cho_factor(wanted, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, cross, check_finite=False))
