"""Monomials of total degree at most n in D variables: the space Pi_n^D, of dimension C(n + D, D)."""

import functools
import itertools

import numpy as np

__all__ = ["monomial_derivatives", "monomials", "multi_indices"]


@functools.cache
def _multi_indices(degree: int, dim: int) -> tuple[tuple[int, ...], ...]:
    grid = itertools.product(range(degree + 1), repeat=dim)
    return tuple(sorted((e for e in grid if sum(e) <= degree), key=lambda e: (sum(e), e)))


def multi_indices(degree: int, dim: int) -> np.ndarray:
    """Return all e with |e| <= degree, ordered by |e|, shape (N, D).

    Examples
    --------
    >>> multi_indices(1, 2).tolist()
    [[0, 0], [0, 1], [1, 0]]
    """
    return np.array(_multi_indices(degree, dim), dtype=int)


def monomials(xi: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return the matrix of xi^e, shape (..., D) and (N, D) to (..., N)."""
    degree = int(exponents.max())
    powers = np.ones((*xi.shape, degree + 1))
    for k in range(1, degree + 1):
        powers[..., k] = powers[..., k - 1] * xi
    result = powers[..., 0, exponents[:, 0]]
    for d in range(1, xi.shape[-1]):
        result = result * powers[..., d, exponents[:, d]]
    return result


def monomial_derivatives(xi: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return the first derivatives of xi^e, shape (..., D) and (N, D) to (..., D, N).

    Examples
    --------
    >>> monomial_derivatives(np.array([3.0]), np.array([[0], [1], [2]])).tolist()
    [[0.0, 1.0, 6.0]]
    """
    dim = xi.shape[-1]
    result = []
    for d in range(dim):
        lowered = exponents - np.eye(dim, dtype=int)[d]
        result.append(exponents[:, d] * monomials(xi, np.maximum(lowered, 0)))
    return np.stack(result, axis=-2)
