"""Runge-Kutta steps of polynomial vector fields, with sensitivities and adjoints, compiled by numba (extra `fast`).

A field is exponents (M, d) and a table of coefficients (M, d). Trajectories are independent of each other; a kernel
takes those, or those blocks of them, from ``first`` to ``last``. Where there are no sensitivities, `LANES` trajectories
fill the processor's vectors.
"""

import numpy as np

from sciml.solvers.compiled.lanes import compiled

__all__ = ["LANES", "adjoint", "flow", "states"]

LANES = 16


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

    Columns are the state, its derivatives by the d numbers of the start and by the coefficients
    ``table[rows, outputs]``.
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
def _fill(parents, factors, x, monomials):  # type: ignore[no-untyped-def]
    """Write all monomials of `LANES` states, (M, LANES): each is its parent's times one variable."""
    for m in range(monomials.shape[0]):
        if parents[m] < 0:
            for i in range(LANES):
                monomials[m, i] = 1.0
        else:
            for i in range(LANES):
                monomials[m, i] = monomials[parents[m], i] * x[factors[m], i]


@compiled
def _slopes(table, monomials, k):  # type: ignore[no-untyped-def]
    """Write the slopes, (d, LANES)."""
    k[:] = 0.0
    for m in range(monomials.shape[0]):
        for j in range(k.shape[0]):
            factor = table[m, j]
            for i in range(LANES):
                k[j, i] += factor * monomials[m, i]


@compiled
def _interval(parents, factors, table, y, length, substeps, stages, monomials, k, total):  # type: ignore[no-untyped-def]
    """Take states (d, LANES) through one interval of lengths (LANES,); write the stages' states."""
    d = y.shape[0]
    for n in range(substeps):
        for stage in range(4):
            at = stages[n, stage]
            part = 0.0 if stage == 0 else (1.0 if stage == 3 else 0.5) / substeps
            weight = (1.0 if stage in (0, 3) else 2.0) / (6 * substeps)
            for j in range(d):
                for i in range(LANES):
                    # The slope of the stage before is still in k.
                    at[j, i] = y[j, i] + part * length[i] * k[j, i] if stage else y[j, i]
            _fill(parents, factors, at, monomials)
            _slopes(table, monomials, k)
            for j in range(d):
                for i in range(LANES):
                    total[j, i] = weight * length[i] * k[j, i] + (total[j, i] if stage else 0.0)
        for j in range(d):
            for i in range(LANES):
                y[j, i] += total[j, i]


@compiled
def states(parents, factors, table, lengths, substeps, frames, first, last):  # type: ignore[no-untyped-def]
    """Fill ``frames``, (B, W, d), from its first frames, for blocks of `LANES` trajectories from first to last."""
    count, d, monomials = frames.shape[0], frames.shape[2], np.empty((len(table), LANES))
    y, k, total, length = np.empty((d, LANES)), np.empty((d, LANES)), np.empty((d, LANES)), np.empty(LANES)
    stages = np.empty((substeps, 4, d, LANES))
    for block in range(first, last):
        for i in range(LANES):
            y[:, i] = frames[min(block * LANES + i, count - 1), 0]
        for w in range(lengths.shape[1]):
            for i in range(LANES):
                length[i] = lengths[min(block * LANES + i, count - 1), w]
            _interval(parents, factors, table, y, length, substeps, stages, monomials, k, total)
            for i in range(min(LANES, count - block * LANES)):
                frames[block * LANES + i, w + 1] = y[:, i]


@compiled
def adjoint(parents, factors, table, lengths, substeps, frames, upstream, of_table, of_start, first, last):  # type: ignore[no-untyped-def]
    """Write the derivatives of sum(upstream * frames) by the table, for each block, and by the starts.

    ``frames`` and ``upstream`` are (B, W, d), ``of_table`` is (blocks, M, d). Steps between two frames are done again.
    """
    count, d, size = frames.shape[0], frames.shape[2], len(table)
    monomials, bar, sums = np.empty((size, LANES)), np.empty((size, LANES)), np.empty((size, d, LANES))
    y, k, total, length = np.empty((d, LANES)), np.empty((d, LANES)), np.empty((d, LANES)), np.empty(LANES)
    future, inner = np.empty((d, LANES)), np.empty((d, LANES))
    stages = np.empty((substeps, 4, d, LANES))
    for block in range(first, last):
        sums[:] = 0.0
        future[:] = 0.0
        real = min(LANES, count - block * LANES)
        for i in range(real):
            future[:, i] = upstream[block * LANES + i, -1]
        for w in range(lengths.shape[1] - 1, -1, -1):
            for i in range(LANES):
                # Lanes beyond the last trajectory repeat it, and nothing flows back to them.
                y[:, i] = frames[min(block * LANES + i, count - 1), w]
                length[i] = lengths[min(block * LANES + i, count - 1), w] / substeps
            _interval(parents, factors, table, y, length * substeps, substeps, stages, monomials, k, total)
            for n in range(substeps - 1, -1, -1):
                total[:] = 0.0
                for stage in range(3, -1, -1):
                    weight = 1 / 6 if stage in (0, 3) else 1 / 3
                    # What the next stage's state hands down to this slope.
                    part = 0.0 if stage == 3 else 1.0 if stage == 2 else 0.5
                    for j in range(d):
                        for i in range(LANES):
                            handed = part * inner[j, i] if stage < 3 else 0.0
                            k[j, i] = length[i] * (weight * future[j, i] + handed)
                    at = stages[n, stage]
                    _fill(parents, factors, at, monomials)
                    bar[:] = 0.0
                    for m in range(size):
                        for j in range(d):
                            factor = table[m, j]
                            for i in range(LANES):
                                bar[m, i] += factor * k[j, i]
                                sums[m, j, i] += monomials[m, i] * k[j, i]
                    inner[:] = 0.0
                    for m in range(size - 1, -1, -1):
                        if parents[m] < 0:
                            continue
                        p, f = parents[m], factors[m]
                        for i in range(LANES):
                            bar[p, i] += bar[m, i] * at[f, i]
                            inner[f, i] += bar[m, i] * monomials[p, i]
                    for j in range(d):
                        for i in range(LANES):
                            total[j, i] += inner[j, i]
                for j in range(d):
                    for i in range(LANES):
                        future[j, i] += total[j, i]
            for i in range(real):
                for j in range(d):
                    future[j, i] += upstream[block * LANES + i, w, j]
        for i in range(real):
            of_start[block * LANES + i] = future[:, i]
        for m in range(size):
            for j in range(d):
                value = 0.0
                for i in range(real):
                    value += sums[m, j, i]
                of_table[block, m, j] = value
