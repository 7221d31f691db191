"""Steps in time of linear systems of blocks, compiled by numba (extra `fast`).

Columns of blocks and states are filled up with zeros to rows of sixteen real numbers, which `Lanes` hold like eight
complex ones. A row of blocks adds up its columns, each times one number of the state.
"""

import numpy as np

from .lanes import WIDTH, compiled, read, write

__all__ = ["taylor_steps"]

_ROW = 2 * WIDTH


@compiled
def _columns(data, starts, scale, rows):
    """Return the columns of -scale A, block after block, shape (m n rows, 16)."""
    count, size = len(starts) - 1, data.shape[1]
    found = np.zeros((len(data), size, rows * _ROW))
    for leaf in range(count):
        for block in range(starts[leaf], starts[leaf + 1]):
            for j in range(size):
                for i in range(size):
                    found[block, j, i] = -scale[leaf] * data[block, i, j]
    return found


@compiled
def _steps(columns, blocks, starts, size, gain, u, steps, degree):
    """Return u after so many steps; gain, u and blocks are complex views of rows of real numbers."""
    count, rows = len(starts) - 1, len(u) // (WIDTH * (len(starts) - 1))
    now, later, found = u.copy(), u.copy(), np.empty_like(u)
    for _ in range(steps):
        later[:] = now
        for k in range(degree, 0, -1):
            # Horner's scheme.
            state = later.view(np.float64)
            for leaf in range(count):
                for row in range(rows):
                    place = leaf * rows + row
                    total = read(gain, place)
                    for block in range(starts[leaf], starts[leaf + 1]):
                        first = columns[block] * rows * _ROW
                        for j in range(size):
                            total = total + state[first + j] * read(blocks, (block * size + j) * rows + row)
                    write(found, place, read(now, place) + (1.0 / k) * total)
            later, found = found, later
        now, later = later, now
    return now


def taylor_steps(
    data: np.ndarray,
    columns: np.ndarray,
    starts: np.ndarray,
    scale: np.ndarray,
    load: np.ndarray,
    u: np.ndarray,
    steps: int,
    degree: int,
) -> np.ndarray:
    """Return u after steps of u' = scale (load - A u), each the Taylor polynomial of a degree of the exact flow.

    Parameters
    ----------
    data : ndarray, shape (m, n, n)
        Blocks of A, row by row.
    columns, starts : ndarray of int, shape (m,) and (N + 1,)
    scale : ndarray, shape (N,)
        The length of a step included.
    load, u : ndarray, shape (N, n)
    steps, degree : int

    Returns
    -------
    ndarray, shape (N, n)
    """
    count, size = u.shape
    rows = -(-size // _ROW)
    padded = np.zeros((2, count, rows * _ROW))
    padded[0, :, :size], padded[1, :, :size] = load * scale[:, None], u
    gain, state = (part.ravel().view(complex) for part in padded)
    blocks = _columns(data, starts, scale, rows).ravel().view(complex)
    found = _steps(columns, blocks, starts, size, gain, state, steps, degree)
    return found.view(float).reshape(count, -1)[:, :size].copy()
