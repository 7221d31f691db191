"""The sums of ETDRK4 in one pass over memory each.

States have shape (B, S), weights S >= 8, all complex and of one precision.
"""

from collections.abc import Callable

import numpy as np

from .lanes import WIDTH, compiled, load, packed, store

__all__ = ["etdrk4_step"]


@compiled
def _stage(q, n, half, y):
    """Return q n + half y."""
    count, size = y.shape
    result = np.empty_like(y)
    out, n, y = result.ravel(), n.ravel(), y.ravel()
    for block in range(0, size, WIDTH):
        # The last block overlaps the one before it.
        i = min(block, size - WIDTH)
        a, b = load(q, i), load(half, i)
        for j in range(i, count * size, size):
            store(out, j, a * load(n, j) + b * load(y, j))
    return result


@compiled
def _last_stage(q, first, second, half, a):
    """Return q (2 second - first) + half a."""
    count, size = a.shape
    result = np.empty_like(a)
    out, first, second, a = result.ravel(), first.ravel(), second.ravel(), a.ravel()
    for block in range(0, size, WIDTH):
        i = min(block, size - WIDTH)
        u, v = load(q, i), load(half, i)
        for j in range(i, count * size, size):
            n = load(second, j)
            store(out, j, u * (n + n - load(first, j)) + v * load(a, j))
    return result


@compiled
def _step(full, y, alpha, first, beta, middle, second, gamma, last):
    """Return full y + alpha first + beta (middle + second) + gamma last."""
    count, size = y.shape
    result = np.empty_like(y)
    out, y, first = result.ravel(), y.ravel(), first.ravel()
    middle, second, last = middle.ravel(), second.ravel(), last.ravel()
    for block in range(0, size, WIDTH):
        i = min(block, size - WIDTH)
        a, b, c, d = load(full, i), load(alpha, i), load(beta, i), load(gamma, i)
        for j in range(i, count * size, size):
            inner = c * (load(middle, j) + load(second, j))
            store(out, j, a * load(y, j) + b * load(first, j) + inner + d * load(last, j))
    return result


def etdrk4_step(
    weights: tuple[np.ndarray, ...],
    dt: float,
    t: float,
    y: np.ndarray,
    nonlinear: Callable[[float, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the state at t + dt; the weights have the last axes of y, at least 8 numbers."""
    full, half, q, alpha, beta, gamma = (packed(w, y.dtype).ravel() for w in weights)
    batch = (-1, full.size)
    middle_time = t + dt / 2

    def rate(t: float, state: np.ndarray) -> np.ndarray:
        return packed(nonlinear(t, state.reshape(y.shape)), y.dtype).reshape(batch)

    start = packed(y, y.dtype).reshape(batch)
    first = rate(t, start)
    a = _stage(q, first, half, start)
    middle = rate(middle_time, a)
    second = rate(middle_time, _stage(q, middle, half, start))
    last = rate(t + dt, _last_stage(q, first, second, half, a))
    return _step(full, start, alpha, first, beta, middle, second, gamma, last).reshape(y.shape)
