"""Legendre polynomials, orthonormal on [0, 1], and the Gauss rules that belong to them."""

import functools

import numpy as np

__all__ = ["gauss", "legendre"]


@functools.cache
def gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss nodes and weights on [0, 1], exact to degree 2 count - 1.

    Examples
    --------
    >>> gauss(1)
    (array([0.5]), array([1.]))
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (nodes + 1), 0.5 * weights


def legendre(x: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sqrt(2 k + 1) P_k(2 x - 1) and derivatives, shape (...) to (..., order + 1).

    Examples
    --------
    >>> values, derivatives = legendre(np.array(1.0), 1)
    >>> np.round(values**2, 12).tolist(), np.round(derivatives**2, 12).tolist()
    ([1.0, 3.0], [0.0, 12.0])
    """
    scale = np.sqrt(2 * np.arange(order + 1) + 1)
    y = 2 * np.asarray(x, dtype=float) - 1
    values = np.polynomial.legendre.legvander(y.ravel(), order).reshape(*y.shape, order + 1)
    derivatives = np.zeros_like(values)
    for k in range(1, order + 1):
        # P_k' = P_(k-2)' + (2 k - 1) P_(k-1)
        before = derivatives[..., k - 2] if k > 1 else 0.0
        derivatives[..., k] = before + (2 * k - 1) * values[..., k - 1]
    return values * scale, 2 * derivatives * scale
