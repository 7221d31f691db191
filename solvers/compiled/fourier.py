"""Truncated Fourier transforms compiled by numba (extra `fast`), eight lines at a time.

Each axis takes one complex transform per line, in place, by decimation in time: numbers enter a buffer
in digit-reversed order, and passes of radix 2 to 5 merge neighbouring blocks. Real lines of n numbers
are taken as n / 2 complex ones (Press et al., Numerical Recipes, section 12.3). Only retained columns are
transformed, and the numbers left out are never stored.
"""

import functools
import math
from typing import Any

import numpy as np

from sciml.errors import ConfigError

from .lanes import (
    WIDTH,
    compiled,
    conjugated,
    gather,
    load,
    packed,
    read,
    scatter,
    squares,
    store,
    swapped,
    turned,
    write,
)

__all__ = ["CompiledTransform"]

_COS_72, _COS_144 = (math.sqrt(5) - 1) / 4, -(math.sqrt(5) + 1) / 4
_SIN_72, _SIN_144, _SIN_60 = math.sin(math.pi / 2.5), math.sin(math.pi / 5), math.sqrt(0.75)


@compiled
def _pass2(buffer, n, m, twiddles, first):
    for start in range(0, n, 2 * m):
        t = first
        for j in range(start, start + m):
            a, b = read(buffer, j), twiddles[t] * read(buffer, j + m)
            write(buffer, j, a + b)
            write(buffer, j + m, a - b)
            t += 1


@compiled
def _pass3(buffer, n, m, twiddles, first):
    for start in range(0, n, 3 * m):
        t = first
        for j in range(start, start + m):
            a = read(buffer, j)
            b, c = twiddles[t] * read(buffer, j + m), twiddles[t + 1] * read(buffer, j + 2 * m)
            both = b + c
            mean, side = a - 0.5 * both, turned(_SIN_60 * (b - c))
            write(buffer, j, a + both)
            write(buffer, j + m, mean + side)
            write(buffer, j + 2 * m, mean - side)
            t += 2


@compiled
def _pass4(buffer, n, m, twiddles, first):
    for start in range(0, n, 4 * m):
        t = first
        for j in range(start, start + m):
            a, b = read(buffer, j), twiddles[t] * read(buffer, j + m)
            c, d = twiddles[t + 1] * read(buffer, j + 2 * m), twiddles[t + 2] * read(buffer, j + 3 * m)
            p, q, r, s = a + c, a - c, b + d, turned(b - d)
            write(buffer, j, p + r)
            write(buffer, j + m, q + s)
            write(buffer, j + 2 * m, p - r)
            write(buffer, j + 3 * m, q - s)
            t += 3


@compiled
def _pass5(buffer, n, m, twiddles, first):
    for start in range(0, n, 5 * m):
        t = first
        for j in range(start, start + m):
            a, b = read(buffer, j), twiddles[t] * read(buffer, j + m)
            c, d = twiddles[t + 1] * read(buffer, j + 2 * m), twiddles[t + 2] * read(buffer, j + 3 * m)
            e = twiddles[t + 3] * read(buffer, j + 4 * m)
            p, q, r, s = b + e, c + d, b - e, c - d
            u, v = a + (_COS_72 * p + _COS_144 * q), a + (_COS_144 * p + _COS_72 * q)
            x, y = turned(_SIN_72 * r + _SIN_144 * s), turned(_SIN_144 * r - _SIN_72 * s)
            write(buffer, j, a + (p + q))
            write(buffer, j + m, u + x)
            write(buffer, j + 2 * m, v + y)
            write(buffer, j + 3 * m, v - y)
            write(buffer, j + 4 * m, u - x)
            t += 4


@compiled
def _transform(buffer, n, radices, twiddles):
    """Replace n rows, digit-reversed, by their sums with exp(+2 pi i j k / n)."""
    m, first = 1, 0
    for radix in radices:
        if radix == 4:
            _pass4(buffer, n, m, twiddles, first)
        elif radix == 2:
            _pass2(buffer, n, m, twiddles, first)
        elif radix == 3:
            _pass3(buffer, n, m, twiddles, first)
        else:
            _pass5(buffer, n, m, twiddles, first)
        first += (radix - 1) * m
        m *= radix


@compiled
def _columns_to_grid(modes, factor, parts, grid, m, n, place, radices, twiddles):
    """From (A, 2 m + 1, T) modes to (A, n, T) values; with C > 0 parts of a factor, from (A / C, ...)."""
    count, _, width = grid.shape
    rows = 2 * m + 1
    modes, factor, grid = modes.ravel(), factor.ravel(), grid.ravel()
    buffer = np.zeros(WIDTH * n, modes.dtype)
    zero = read(buffer, 0)
    for a in range(count):
        for block in range(0, width, WIDTH):
            # The last block overlaps the one before it.
            column = min(block, width - WIDTH)
            for q in range(m + 1, n - m):
                write(buffer, place[q], zero)
            for row in range(rows):
                q = row if row <= m else n - rows + row
                if parts > 0:
                    weight = load(factor, (a % parts * rows + row) * width + column)
                    write(buffer, place[q], weight * load(modes, (a // parts * rows + row) * width + column))
                else:
                    write(buffer, place[q], load(modes, (a * rows + row) * width + column))
            _transform(buffer, n, radices, twiddles)
            for j in range(n):
                store(grid, (a * n + j) * width + column, read(buffer, j))


@compiled
def _columns_to_modes(grid, modes, m, n, place, radices, twiddles):
    """From (A, n, T) values to n times the (A, 2 m + 1, T) modes."""
    count, rows, width = modes.shape
    modes, grid = modes.ravel(), grid.ravel()
    buffer = np.empty(WIDTH * n, modes.dtype)
    for a in range(count):
        for block in range(0, width, WIDTH):
            column = min(block, width - WIDTH)
            for j in range(n):
                write(buffer, place[j], swapped(load(grid, (a * n + j) * width + column)))
            _transform(buffer, n, radices, twiddles)
            for row in range(rows):
                q = row if row <= m else n - rows + row
                store(modes, (a * rows + row) * width + column, swapped(read(buffer, q)))


@compiled
def _enter(modes, spectrum, line, last, columns, half, buffer, turns, place):
    """Put the modes of eight real lines into the buffer, those of their even points + i odd points."""
    for k in range(columns):
        write(spectrum, k, gather(modes, line * columns + k, columns, last))
    mean = read(spectrum, 0)
    write(spectrum, 0, 0.5 * (mean + conjugated(mean)))
    for k in range(half):
        a, b = read(spectrum, k), conjugated(read(spectrum, half - k))
        write(buffer, place[k], (a + b) + turns[k] * (a - b))


@compiled
def _mode(buffer, k, half, turns):
    """Return 2 n times the modes of real lines from the buffer, where their pairs were transformed, swapped."""
    a = swapped(read(buffer, k))
    b = conjugated(swapped(read(buffer, (half - k) % half)))
    return (a + b) + turns[k].conjugate() * (a - b)


@compiled
def _rows_to_grid(modes, grid, turns, place, radices, twiddles):
    """From (R, m + 1) modes to (R, n / 2) pairs of real values."""
    lines, columns = modes.shape
    half = grid.shape[1]
    modes, grid = modes.ravel(), grid.ravel()
    spectrum = np.zeros(WIDTH * (half + 1), modes.dtype)
    buffer = np.empty(WIDTH * half, modes.dtype)
    for line in range(0, lines, WIDTH):
        last = min(WIDTH, lines - line) - 1
        _enter(modes, spectrum, line, last, columns, half, buffer, turns, place)
        _transform(buffer, half, radices, twiddles)
        for j in range(half):
            scatter(grid, line * half + j, half, last, read(buffer, j))


@compiled
def _rows_to_modes(grid, modes, scale, turns, place, radices, twiddles):
    """From (R, n / 2) pairs of real values to 2 scale n times the (R, m + 1) modes."""
    lines, half = grid.shape
    columns = modes.shape[1]
    modes, grid = modes.ravel(), grid.ravel()
    buffer = np.empty(WIDTH * half, modes.dtype)
    for line in range(0, lines, WIDTH):
        last = min(WIDTH, lines - line) - 1
        for j in range(half):
            write(buffer, place[j], swapped(gather(grid, line * half + j, half, last)))
        _transform(buffer, half, radices, twiddles)
        for k in range(columns):
            scatter(modes, line * columns + k, columns, last, scale * _mode(buffer, k, half, turns))


@compiled
def _squared(modes, result, weight, scale, turns, place, radices, twiddles):
    """From (R, m + 1) modes to 2 scale n weight times those of the square."""
    lines, columns = modes.shape
    half = place.size
    modes, result = modes.ravel(), result.ravel()
    spectrum = np.zeros(WIDTH * (half + 1), modes.dtype)
    values, buffer = np.empty(WIDTH * half, modes.dtype), np.empty(WIDTH * half, modes.dtype)
    for line in range(0, lines, WIDTH):
        last = min(WIDTH, lines - line) - 1
        _enter(modes, spectrum, line, last, columns, half, values, turns, place)
        _transform(values, half, radices, twiddles)
        for j in range(half):
            write(buffer, place[j], swapped(squares(read(values, j))))
        _transform(buffer, half, radices, twiddles)
        for k in range(columns):
            both = weight[k] * (scale * _mode(buffer, k, half, turns))
            scatter(result, line * columns + k, columns, last, both)


@functools.cache
def _plan(n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each row enters the buffer, the radices of the passes and their twiddle factors."""
    radices, rest = [], n
    for radix in (4, 2, 3, 5):
        while rest % radix == 0:
            radices.append(radix)
            rest //= radix
    order = np.arange(n)[None]
    for radix in reversed(radices):
        order = order.reshape(len(order), -1, radix).swapaxes(1, 2).reshape(-1, order.shape[1] // radix)
    twiddles, m = [np.empty(0)], 1
    for radix in radices:
        powers = np.outer(np.arange(m), np.arange(1, radix)).ravel()
        twiddles.append(np.exp(2j * np.pi * powers / (radix * m)))
        m *= radix
    return np.argsort(order.ravel()), np.array(radices), np.concatenate(twiddles).astype(dtype)


def _smooth(n: int) -> bool:
    for radix in (2, 3, 5):
        while n % radix == 0:
            n //= radix
    return n == 1


class CompiledTransform:
    """The transforms between modes of shape (..., *mode_shape) and values of shape (..., *nodes).

    Every line of numbers is transformed by itself, in the same way: members of a batch do not change
    each other's bits. Shapes of arguments are not checked.

    Parameters
    ----------
    modes, nodes : tuple of int
        m_d and n_d >= 2 m_d + 1, which must suit; see `suits`.
    dtype : dtype
        Of the modes, complex64 or complex128.

    Raises
    ------
    ConfigError
        If the sizes do not suit.

    Examples
    --------
    >>> transform = CompiledTransform((1,), (4,), np.dtype(complex))
    >>> transform.to_modes(np.array([1.0, 3.0, 1.0, 3.0])).real.tolist()
    [2.0, 0.0]
    """

    def __init__(self, modes: tuple[int, ...], nodes: tuple[int, ...], dtype: Any) -> None:
        if not self.suits(modes, nodes):
            raise ConfigError(f"modes={modes} on {nodes} nodes: no sizes for compiled transforms")
        self.modes, self.nodes, self.dtype = modes, nodes, np.dtype(dtype)
        self.shape = (*(2 * m + 1 for m in modes[:-1]), modes[-1] + 1)
        self.real_dtype = self.dtype.type().real.dtype
        half = nodes[-1] // 2
        self.turns = (1j * np.exp(1j * np.pi * np.arange(half) / half)).astype(dtype)
        self.plans = [_plan(n, self.dtype) for n in (*nodes[:-1], half)]

    @staticmethod
    def suits(modes: tuple[int, ...], nodes: tuple[int, ...]) -> bool:
        """Return whether sizes have factors 2, 3 and 5 only, the last one 2, and rows fill the lanes.

        Examples
        --------
        >>> CompiledTransform.suits((10, 10), (32, 32)), CompiledTransform.suits((10,), (33,))
        (True, False)
        """
        wide = len(modes) == 1 or modes[-1] + 1 >= WIDTH
        wide = wide and all(n >= 2 * m + 1 for m, n in zip(modes, nodes, strict=True))
        return wide and nodes[-1] % 2 == 0 and all(_smooth(n) for n in nodes)

    def to_grid(self, modes: np.ndarray, factor: np.ndarray | None = None) -> np.ndarray:
        """Return the values of the series of modes * factor, shape (..., *nodes).

        Examples
        --------
        >>> transform = CompiledTransform((1,), (4,), np.dtype(complex))
        >>> transform.to_grid(np.array([1.0, 0.5 + 0j])).round(12).tolist()
        [2.0, 1.0, 0.0, 1.0]
        """
        dim, weights = len(self.nodes), np.empty(0, self.dtype)
        lead = modes.shape[:-dim]
        if factor is not None and dim > 1 and lead[-1:] == (1,) and factor.shape[1:] == self.shape:
            weights = packed(factor, self.dtype)
            lead = (*lead[:-1], weights.shape[0])
        elif factor is not None:
            modes = modes * factor
            lead = modes.shape[:-dim]
        values, count = packed(modes, self.dtype), math.prod(lead)
        for d, (m, n) in enumerate(zip(self.modes[:-1], self.nodes[:-1], strict=True)):
            width, parts = math.prod(self.shape[d + 1 :]), weights.size // math.prod(self.shape)
            columns = values.reshape(count // max(parts, 1), 2 * m + 1, width)
            values = np.empty((count, n, width), self.dtype)
            _columns_to_grid(columns, weights, parts, values, m, n, *self.plans[d])
            weights, count = weights[:0], count * n
        pairs = np.empty((count, self.nodes[-1] // 2), self.dtype)
        _rows_to_grid(values.reshape(count, self.shape[-1]), pairs, self.turns, *self.plans[-1])
        return pairs.view(self.real_dtype).reshape(*lead, *self.nodes)

    def to_modes(self, values: np.ndarray) -> np.ndarray:
        """Return the truncated modes of the interpolant, shape (..., *mode_shape).

        Examples
        --------
        >>> transform = CompiledTransform((1,), (4,), np.dtype(complex))
        >>> transform.to_modes(np.array([0.0, 1.0, 0.0, -1.0])).imag.round(12).tolist()
        [0.0, -0.5]
        """
        lead = values.shape[: -len(self.nodes)]
        real = packed(values, self.real_dtype)
        count = math.prod(lead) * math.prod(self.nodes[:-1])
        pairs = real.reshape(count, self.nodes[-1]).view(self.dtype)
        modes = np.empty((count, self.shape[-1]), self.dtype)
        scale = 0.5 / math.prod(self.nodes)
        _rows_to_modes(pairs, modes, scale, self.turns, *self.plans[-1])
        for d in range(len(self.nodes) - 2, -1, -1):
            m, n, width = self.modes[d], self.nodes[d], math.prod(self.shape[d + 1 :])
            count //= n
            grid, modes = modes, np.empty((count, 2 * m + 1, width), self.dtype)
            _columns_to_modes(grid.reshape(count, n, width), modes, m, n, *self.plans[d])
        return modes.reshape(*lead, *self.shape)

    def squared(self, modes: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return weight times the modes of the square of a series in one dimension, shape (..., m + 1).

        Examples
        --------
        >>> transform = CompiledTransform((1,), (4,), np.dtype(complex))
        >>> transform.squared(np.array([1.0, 0.5 + 0j]), np.ones(2)).real.tolist()
        [1.5, 1.0]
        """
        lines = packed(modes, self.dtype).reshape(math.prod(modes.shape[:-1]), self.shape[-1])
        result = np.empty_like(lines)
        scale = 0.5 / self.nodes[-1]
        _squared(lines, result, packed(weight, self.dtype), scale, self.turns, *self.plans[-1])
        return result.reshape(modes.shape)
