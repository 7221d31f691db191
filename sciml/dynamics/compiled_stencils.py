"""Runge-Kutta steps of polynomial stencils on a grid, with sensitivities, compiled by numba (extra `fast`).

A node's slope is a polynomial in the values of the nodes ``neighbours[n]``: variable v is the component v mod k of
neighbour v // k. Exponents are (M, variables), the table of coefficients is (M, k). States have columns: the value,
then its derivatives by the coefficients ``table[rows, outputs]``.
"""

import numpy as np

from sciml.solvers.compiled.lanes import compiled

__all__ = ["flow"]


@compiled
def _slope(exponents, table, rows, outputs, neighbours, y, powers, monomials, jacobian, slope):  # type: ignore[no-untyped-def]
    """Write the slopes of all nodes, (N, k, columns)."""
    nodes, k, columns = y.shape
    variables, cells = exponents.shape[1], neighbours.shape[1]
    for n in range(nodes):
        for v in range(variables):
            x = y[neighbours[n, v // k], v % k, 0]
            for a in range(1, powers.shape[1]):
                powers[v, a] = powers[v, a - 1] * x
        for m in range(monomials.size):
            value = 1.0
            for v in range(variables):
                if exponents[m, v]:
                    value *= powers[v, exponents[m, v]]
            monomials[m] = value
        for i in range(k):
            value = 0.0
            for m in range(monomials.size):
                value += monomials[m] * table[m, i]
            slope[n, i, 0] = value
        if columns == 1:
            continue
        jacobian[:] = 0.0
        for m in range(monomials.size):
            for v in range(variables):
                if exponents[m, v] == 0:
                    continue
                value = float(exponents[m, v])
                for w in range(variables):
                    power = exponents[m, w] - (1 if v == w else 0)
                    if power:
                        value *= powers[w, power]
                for i in range(k):
                    jacobian[i, v] += table[m, i] * value
        for i in range(k):
            own = slope[n, i]
            for c in range(1, columns):
                own[c] = 0.0
            for cell in range(cells):
                for j in range(k):
                    factor, other = jacobian[i, cell * k + j], y[neighbours[n, cell], j]
                    for c in range(1, columns):
                        own[c] += factor * other[c]
        for p in range(rows.size):
            slope[n, outputs[p], 1 + p] += monomials[rows[p]]


@compiled
def flow(exponents, degree, table, rows, outputs, neighbours, lengths, substeps, frames, first, last):  # type: ignore[no-untyped-def]
    """Fill ``frames``, (B, W, N, k, columns), from its first frames, for trajectories from first to last."""
    nodes, k, columns = frames.shape[2:]
    variables = exponents.shape[1]
    powers, monomials = np.ones((variables, degree + 1)), np.empty(len(table))
    jacobian = np.empty((k, variables))
    shape = (nodes, k, columns)
    y, at, slope, total = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
    flat_y, flat_at, flat_slope, flat_total = y.ravel(), at.ravel(), slope.ravel(), total.ravel()
    for b in range(first, last):
        y[:] = frames[b, 0]
        for w in range(lengths.shape[1]):
            h = lengths[b, w] / substeps
            for _ in range(substeps):
                for stage in range(4):
                    state = y if stage == 0 else at
                    _slope(
                        exponents, table, rows, outputs, neighbours, state, powers, monomials, jacobian, slope
                    )
                    weight = h / 6 if stage in (0, 3) else h / 3
                    part = h if stage == 2 else h / 2
                    for i in range(flat_y.size):
                        flat_total[i] = weight * flat_slope[i] + (flat_total[i] if stage else 0.0)
                        flat_at[i] = flat_y[i] + part * flat_slope[i]
                for i in range(flat_y.size):
                    flat_y[i] += flat_total[i]
            frames[b, w + 1] = y
