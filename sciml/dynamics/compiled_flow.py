"""Runge-Kutta steps of polynomial vector fields, with sensitivities and adjoints, compiled by numba (extra `fast`).

A field is exponents (M, d) and a table of coefficients (M, d). Trajectories are independent of each other; a kernel
takes those from ``first`` to ``last``.
"""

import numpy as np

from sciml.solvers.compiled.lanes import compiled

__all__ = ["adjoint", "flow"]


@compiled
def _monomials(exponents, x, powers, monomials):  # type: ignore[no-untyped-def]
    """Write x_j^a, (d, degree + 1), and all monomials."""
    for j in range(x.size):
        powers[j, 0] = 1.0
        for a in range(1, powers.shape[1]):
            powers[j, a] = powers[j, a - 1] * x[j]
    for m in range(monomials.size):
        value = 1.0
        for j in range(x.size):
            value *= powers[j, exponents[m, j]]
        monomials[m] = value


@compiled
def _jacobian(exponents, table, powers, jacobian):  # type: ignore[no-untyped-def]
    """Write df_k / dx_i."""
    d = jacobian.shape[0]
    jacobian[:] = 0.0
    for m in range(exponents.shape[0]):
        for i in range(d):
            if exponents[m, i] == 0:
                continue
            value = float(exponents[m, i])
            for j in range(d):
                value *= powers[j, exponents[m, j] - (1 if i == j else 0)]
            for k in range(d):
                jacobian[k, i] += table[m, k] * value


@compiled
def _slope(exponents, table, rows, outputs, y, powers, monomials, jacobian, slope):  # type: ignore[no-untyped-def]
    """Write the slope of a state and, in the columns beside it, of its derivatives."""
    d, columns = y.shape
    _monomials(exponents, y[:, 0], powers, monomials)
    for k in range(d):
        value = 0.0
        for m in range(monomials.size):
            value += monomials[m] * table[m, k]
        slope[k, 0] = value
    if columns == 1:
        return
    _jacobian(exponents, table, powers, jacobian)
    for k in range(d):
        for c in range(1, columns):
            value = 0.0
            for i in range(d):
                value += jacobian[k, i] * y[i, c]
            slope[k, c] = value
    for p in range(rows.size):
        slope[outputs[p], 1 + d + p] += monomials[rows[p]]


@compiled
def flow(exponents, degree, table, rows, outputs, lengths, substeps, frames, first, last):  # type: ignore[no-untyped-def]
    """Fill ``frames``, (B, W, d, columns), from its first frames.

    With one column these are states. Else columns are the state, its derivatives by the d numbers of the start and by
    the coefficients ``table[rows, outputs]``.
    """
    d, columns = frames.shape[2], frames.shape[3]
    powers, monomials, jacobian = np.ones((d, degree + 1)), np.empty(len(table)), np.empty((d, d))
    y, at, k = np.empty((d, columns)), np.empty((d, columns)), np.empty((4, d, columns))
    for b in range(first, last):
        y[:] = frames[b, 0]
        for w in range(lengths.shape[1]):
            h = lengths[b, w] / substeps
            for _ in range(substeps):
                _slope(exponents, table, rows, outputs, y, powers, monomials, jacobian, k[0])
                for stage in range(1, 4):
                    part = h if stage == 3 else h / 2
                    for i in range(d):
                        for c in range(columns):
                            at[i, c] = y[i, c] + part * k[stage - 1, i, c]
                    _slope(exponents, table, rows, outputs, at, powers, monomials, jacobian, k[stage])
                for i in range(d):
                    for c in range(columns):
                        y[i, c] += h / 6 * (k[0, i, c] + 2 * (k[1, i, c] + k[2, i, c]) + k[3, i, c])
            frames[b, w + 1] = y


@compiled
def adjoint(exponents, degree, table, lengths, substeps, frames, upstream, of_table, of_start, first, last):  # type: ignore[no-untyped-def]
    """Write the derivatives of sum(upstream * frames) by the table, for each trajectory, and by its start.

    ``frames`` and ``upstream`` are (B, W, d), ``of_table`` is (B, M, d). Steps between two frames are done again.
    """
    d = frames.shape[2]
    powers, monomials, jacobian = np.ones((d, degree + 1)), np.empty(len(table)), np.empty((d, d))
    stages, k = np.empty((substeps, 4, d)), np.empty(d)
    y, future, inner, slope = np.empty(d), np.empty(d), np.empty(d), np.empty(d)
    for b in range(first, last):
        of_table[b] = 0.0
        future[:] = upstream[b, -1]
        for w in range(lengths.shape[1] - 1, -1, -1):
            h = lengths[b, w] / substeps
            y[:] = frames[b, w]
            for n in range(substeps):
                slope[:] = 0.0
                for stage in range(4):
                    part = 0.0 if stage == 0 else h if stage == 3 else h / 2
                    weight = h / 6 if stage in (0, 3) else h / 3
                    for i in range(d):
                        # The slope of the stage before is still in k.
                        stages[n, stage, i] = y[i] + part * k[i] if stage else y[i]
                    _monomials(exponents, stages[n, stage], powers, monomials)
                    for i in range(d):
                        value = 0.0
                        for m in range(monomials.size):
                            value += monomials[m] * table[m, i]
                        k[i] = value
                        slope[i] += weight * value
                for i in range(d):
                    y[i] += slope[i]
            for n in range(substeps - 1, -1, -1):
                inner[:] = 0.0
                slope[:] = 0.0
                for stage in range(3, -1, -1):
                    weight = h / 6 if stage in (0, 3) else h / 3
                    # What the next stage's state hands down to this slope.
                    part = 0.0 if stage == 3 else h if stage == 2 else h / 2
                    for i in range(d):
                        k[i] = weight * future[i] + part * inner[i]
                    _monomials(exponents, stages[n, stage], powers, monomials)
                    _jacobian(exponents, table, powers, jacobian)
                    for m in range(monomials.size):
                        for i in range(d):
                            of_table[b, m, i] += monomials[m] * k[i]
                    for i in range(d):
                        value = 0.0
                        for j in range(d):
                            value += jacobian[j, i] * k[j]
                        inner[i] = value
                        slope[i] += value
                for i in range(d):
                    future[i] += slope[i]
            for i in range(d):
                future[i] += upstream[b, w, i]
        of_start[b] = future
