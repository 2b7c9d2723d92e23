"""Ridge regression from sums: against the normal equations by hand, whatever way the rows come."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from distilvl.training.ridge import RidgeSums, solve_affine, solve_linear


def rows_of(seed: int, n: int = 60, p: int = 7, q: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, p)) * np.linspace(0.1, 30, p) + random.normal(size=p)
    return x, random.normal(size=(n, q))


def sums_of(x: np.ndarray, u: np.ndarray) -> RidgeSums:
    sums = RidgeSums.zeros(x.shape[1], u.shape[1])
    sums.add(x, u)
    return sums


def by_hand(x: np.ndarray, u: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Standardised columns and an intercept that is not penalised."""
    mean, deviation = x.mean(0), x.std(0)
    design = np.c_[(x - mean) / deviation, np.ones(len(x))]
    penalty = np.diag([ridge] * x.shape[1] + [0.0])
    found = np.linalg.solve(design.T @ design + penalty, design.T @ u)
    weight = (found[:-1] / deviation[:, None]).T
    return weight, found[-1] - weight @ mean


@pytest.mark.parametrize("ridge", [1e-3, 1.0, 1e3])
def test_standardised_columns_as_by_hand(ridge: float) -> None:
    x, u = rows_of(0)
    (found,) = solve_affine(sums_of(x, u), [ridge], scale=1)
    weight, bias = by_hand(x, u, ridge)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-9)
    np.testing.assert_allclose(found.bias, bias, rtol=1e-9)
    np.testing.assert_allclose(found(x), x @ weight.T + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_map_does_not_depend_on_the_unit_of_the_features(scale: float) -> None:
    x, u = rows_of(1)
    (one,) = solve_affine(sums_of(x, u), [30.0], scale)
    (other,) = solve_affine(sums_of(1000 * x, u), [30.0], scale)
    np.testing.assert_allclose(one.weight, 1000 * other.weight, rtol=1e-8)


def test_the_minimum_is_a_minimum() -> None:
    x, u = rows_of(2)
    scale, ridge = 0.5, 20.0
    (found,) = solve_affine(sums_of(x, u), [ridge], scale)
    deviation = x.std(0)
    unit = np.mean(deviation ** (2 - 2 * scale))

    def cost(weight: np.ndarray, bias: np.ndarray) -> float:
        error = x @ weight.T + bias - u
        return float((error**2).sum() + ridge * unit * ((weight * deviation**scale) ** 2).sum())

    least = cost(found.weight, found.bias)
    random = np.random.default_rng(3)
    for _ in range(20):
        step = 1e-3 * random.normal(size=found.weight.shape)
        assert cost(found.weight + step, found.bias) > least
        assert cost(found.weight, found.bias + 1e-2 * random.normal(size=3)) > least


@given(st.integers(0, 59), st.integers(0, 5))
def test_sums_of_parts_are_the_sums_of_all(cut: int, seed: int) -> None:
    x, u = rows_of(seed)
    together = sums_of(x[:cut], u[:cut]) + sums_of(x[cut:], u[cut:])
    for one, other in zip(together.parts, sums_of(x, u).parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_columns_are_those_of_fewer_columns() -> None:
    x, u = rows_of(4)
    chosen = np.array([1, 4, 6])
    for one, other in zip(sums_of(x, u).columns(chosen).parts, sums_of(x[:, chosen], u).parts, strict=True):
        np.testing.assert_allclose(one, other)


def test_a_constant_column_has_no_weight() -> None:
    x, u = rows_of(5)
    x[:, 2] = 4.0
    (found,) = solve_affine(sums_of(x, u), [1.0])
    assert np.isfinite(found.weight).all()
    assert (found.weight[:, 2] == 0).all()


def test_sparse_rows_with_a_ridge_for_each_column_as_by_hand() -> None:
    random = np.random.default_rng(6)
    x = (random.random((80, 9)) < 0.3).astype(np.float32)
    u, ridge = random.normal(size=(80, 4)), random.uniform(0.1, 5, 9)
    sums = RidgeSums.zeros(9, 4)
    sums.add(scipy.sparse.csr_matrix(x), u)
    wide = x.astype(np.float64)
    expected = np.linalg.solve(wide.T @ wide + np.diag(ridge), wide.T @ u)
    np.testing.assert_allclose(solve_linear(sums, ridge), expected, rtol=1e-9)


def test_an_entry_that_no_text_has_gets_zeros() -> None:
    x, u = np.eye(4)[:3], np.ones((3, 2))
    assert (solve_linear(sums_of(x, u), np.full(4, 0.1))[3] == 0).all()


def test_half_precision_rows_are_added_in_double_precision() -> None:
    x = np.full((10_000, 1), 0.1, dtype=np.float32)
    sums = sums_of(x, x)
    assert abs(float(sums.xx[0, 0]) - 10_000 * float(np.float32(0.1)) ** 2) < 1e-9
