"""Steps of an FNO's layer in one pass over memory each, compiled by numba (extra `fast`).

Of a function a few dozen points are taken at a time through all that a step does, in the processor's caches, with the
tiles of `sciml.operators.tiles`. Steps one after the other, each over the whole function, would spend as much time on
memory as on numbers.

Arrays are float32 and of one axis, matrices row by row; sizes are not checked. Each number of a result is summed in
the same order whatever the size of the batch. Where numba sees no use of an array's name any more, its memory may be
gone: addresses of arrays made here are taken where they are used.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from sciml.solvers.compiled.lanes import compiled

from .compiled import DIGEST as OF_GELU
from .compiled import gelu_backward, gelu_forward, gelu_in_place
from .products import NARROW
from .tiles import DIGEST as OF_TILES
from .tiles import TILE, block, packed, start_at

__all__ = ["branches", "branches_backward", "mlp", "mlp_backward", "sweep"]

POINTS_AT_ONCE = 64
"""Of a line, for which all channels stay in the cache."""
PARTS_TOGETHER = 8
"""Whose sums are added to those of all others at once."""


def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that contains GELU and tiles, which decide of its age, too."""
    function.__qualname__ += f"_{OF_GELU}_{OF_TILES}"
    return compiled(function)


@njit(nogil=True)
def _matrix(array, columns):  # type: ignore[no-untyped-def]
    return packed(array.ctypes.data, columns)


@njit(nogil=True)
def _part(points):  # type: ignore[no-untyped-def]
    """Return how many points are taken at once: equal parts, of whole tiles."""
    points = max(points, 1)
    parts = (points + POINTS_AT_ONCE - 1) // POINTS_AT_ONCE
    return TILE * ((points + parts * TILE - 1) // (parts * TILE))


@njit(nogil=True)
def _transposed(matrix):  # type: ignore[no-untyped-def]
    address, to_row, to_column = matrix
    return address, to_column, to_row


@njit(nogil=True)
def _activated(given, room, activate):  # type: ignore[no-untyped-def]
    """Return gelu of what is given, in the room for it, or what is given."""
    if not activate:
        return given
    gelu_forward(given, room)
    return room[: given.size]


@njit(nogil=True, fastmath={"contract", "reassoc"})
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(nogil=True)
def _add_rows(rows: np.ndarray, room: np.ndarray, totals: np.ndarray) -> None:
    """Add the sum of rows, found by itself: sums of few numbers round less."""
    columns = totals.size
    room[:columns] = 0
    for i in range(rows.size // columns):
        row = rows[i * columns : (i + 1) * columns]
        for j in range(columns):
            room[j] += row[j]
    for j in range(columns):
        totals[j] += room[j]


@njit(nogil=True)
def _collected(part: int, last: bool, partial: np.ndarray, totals: np.ndarray) -> None:
    """After some parts, and the last, add what they came to: sums of few numbers round less."""
    if not last and part % PARTS_TOGETHER != PARTS_TOGETHER - 1:
        return
    for i in range(partial.size):
        totals[i] += partial[i]
        partial[i] = 0


@_fused
def mlp(  # type: ignore[no-untyped-def]
    inputs, hidden, outputs, x, first, bias, second, across, start, result, activate,
):  # fmt: skip
    """Write start + W2 gelu(W1 v + b1) to the result, v = x or gelu(x).

    Parameters
    ----------
    inputs, hidden, outputs : int
    x, result : arrays, shapes (points, inputs) and (points, outputs)
    first, bias, second, across : arrays
        W1 transposed, b1, W2, W2 transposed.
    start : array, shape (outputs,) or that of the result, which it may be
    activate : bool
        Whether v is gelu(x).
    """
    points = x.size // inputs
    most = _part(min(points, POINTS_AT_ONCE))
    v, h = np.empty(most * inputs, np.float32), np.empty(most * hidden, np.float32)
    w1, b1, w2 = _matrix(first, hidden), _matrix(bias, 0), _matrix(across, outputs)
    step = 0 if start.size == outputs else outputs
    initial, written, of_h = _matrix(start, step), _matrix(result, outputs), _matrix(h, hidden)
    for p in range(0, points, most):
        count = min(most, points - p)
        here = _activated(x[p * inputs : (p + count) * inputs], v, activate)
        block(count, inputs, hidden, _matrix(here, inputs), w1, b1, of_h)
        gelu_in_place(h[: count * hidden])
        if outputs < NARROW:
            for i in range(count):
                values = h[i * hidden : (i + 1) * hidden]
                for j in range(outputs):
                    row = second[j * hidden : (j + 1) * hidden]
                    result[(p + i) * outputs + j] = start[(p + i) * step + j] + _dot(values, row)
        else:
            block(count, hidden, outputs, of_h, w2, start_at(initial, p, 0), start_at(written, p, 0))


@_fused
def mlp_backward(  # type: ignore[no-untyped-def]
    inputs, hidden, outputs, x, across, first, bias, second, change, activate, of_x, of_first, of_bias, of_second,
):  # fmt: skip
    """From the gradient of the result of `mlp` find that of x, and add to those of its parameters.

    Parameters
    ----------
    inputs, hidden, outputs : int
    x, change : arrays, shapes (points, inputs) and (points, outputs)
        The latter is the result's gradient.
    across, first, bias, second : arrays
        W1 transposed, W1, b1, W2.
    activate : bool
        Whether v is gelu(x).
    of_x : array, shape of x or of no numbers, where it is not asked for
    of_first, of_bias, of_second : arrays
        Of W1 transposed, b1 and W2; of no numbers where they are not asked for.
    """
    points = x.size // inputs
    most = _part(min(points, POINTS_AT_ONCE))
    room = np.empty(most * inputs, np.float32)
    argument, h = np.empty(most * hidden, np.float32), np.empty(most * hidden, np.float32)
    zero, sums = np.zeros(max(inputs, hidden), np.float32), np.empty(hidden, np.float32)
    w1, b1, w1_back, w2_back = (
        _matrix(across, hidden),
        _matrix(bias, 0),
        _matrix(first, inputs),
        _matrix(second, hidden),
    )
    of_argument, of_h = _matrix(argument, hidden), _matrix(h, hidden)
    first_part, second_part = np.zeros(of_first.size, np.float32), np.zeros(of_second.size, np.float32)
    for p in range(0, points, most):
        count, part, last = min(most, points - p), p // most, p + most >= points
        given = x[p * inputs : (p + count) * inputs]
        v = _matrix(_activated(given, room, activate), inputs)
        changes = start_at(_matrix(change, outputs), p, 0)
        block(count, inputs, hidden, v, w1, b1, of_argument)
        if of_second.size:
            gelu_forward(argument[: count * hidden], h)
            to_second = _matrix(second_part, hidden)
            block(outputs, count, hidden, _transposed(changes), of_h, to_second, to_second)
            _collected(part, last, second_part, of_second)
        block(count, outputs, hidden, changes, w2_back, _matrix(zero, 0), of_h)
        gelu_backward(argument[: count * hidden], h)
        if of_first.size:
            to_first = _matrix(first_part, hidden)
            block(inputs, count, hidden, _transposed(v), of_h, to_first, to_first)
            _collected(part, last, first_part, of_first)
            _add_rows(h[: count * hidden], sums, of_bias)
        if of_x.size:
            block(
                count, hidden, inputs, of_h, w1_back, _matrix(zero, 0), start_at(_matrix(of_x, inputs), p, 0)
            )
            if activate:
                gelu_backward(given, of_x[p * inputs : (p + count) * inputs])


@_fused
def branches(  # type: ignore[no-untyped-def]
    lines, points, channels, kept, outputs, x, weight, bias, gate, shift, activate, analysis, found, mixed, gated,
):  # fmt: skip
    """Find A v, W v + b and gate v + shift, v = x or gelu(x).

    Parameters
    ----------
    lines, points, channels, kept, outputs : int
        Kept are the real and imaginary parts along a line.
    x : array, shape (lines, points, channels)
    weight, bias : arrays, shapes (channels, outputs) and (outputs,)
        W transposed, b.
    gate, shift : arrays, shape (channels,)
        Of no numbers, there is no third result.
    activate : bool
        Whether v is gelu(x).
    analysis : array, shape (points, kept)
        A transposed.
    found, mixed, gated : arrays, shapes (lines, kept, channels), (lines, points, outputs) and that of x
    """
    most = _part(points)
    room, zero = np.empty(most * channels, np.float32), np.zeros(channels, np.float32)
    w, b = _matrix(weight, outputs), _matrix(bias, 0)
    for line in range(lines):
        c = start_at(_matrix(found, channels), line * kept, 0)
        for p in range(0, points, most):
            count, at = min(most, points - p), line * points + p
            here = _activated(x[at * channels : (at + count) * channels], room, activate)
            v = _matrix(here, channels)
            block(count, channels, outputs, v, w, b, start_at(_matrix(mixed, outputs), at, 0))
            back = _transposed(start_at(_matrix(analysis, kept), p, 0))
            block(kept, count, channels, back, v, _matrix(zero, 0) if p == 0 else c, c)
            for i in range(count if gate.size else 0):
                values, to = here[i * channels : (i + 1) * channels], (at + i) * channels
                for j in range(channels):
                    gated[to + j] = values[j] * gate[j] + shift[j]


@_fused
def branches_backward(  # type: ignore[no-untyped-def]
    lines, points, channels, kept, outputs, x, weight, gate, activate, analysis, rows, mixed, gated,
    of_x, of_weight, of_bias, of_gate, of_shift,
):  # fmt: skip
    """From gradients of the results of `branches` find that of x, and add to those of its parameters.

    Parameters
    ----------
    lines, points, channels, kept, outputs, activate, analysis : as of `branches`
    x, weight, gate : arrays, shapes (lines, points, channels), (outputs, channels) and (channels,)
    rows, mixed, gated : arrays
        Gradients of the three results; the last of no numbers where there is none.
    of_x : array, shape of x
    of_weight, of_bias, of_gate, of_shift : arrays
        Of no numbers where they are not asked for.
    """
    most = _part(points)
    room, zero = np.empty(most * channels, np.float32), np.zeros(channels, np.float32)
    sums = np.empty(max(channels, outputs), np.float32)
    weight_part, part = np.zeros(of_weight.size, np.float32), 0
    w = _matrix(weight, channels)
    for line in range(lines):
        c = start_at(_matrix(rows, channels), line * kept, 0)
        for p in range(0, points, most):
            count, at = min(most, points - p), line * points + p
            begin, end = at * channels, (at + count) * channels
            given, result = x[begin:end], of_x[begin:end]
            here = _activated(given, room, activate)
            changes, to = start_at(_matrix(mixed, outputs), at, 0), _matrix(result, channels)
            block(count, kept, channels, start_at(_matrix(analysis, kept), p, 0), c, _matrix(zero, 0), to)
            block(count, outputs, channels, changes, w, to, to)
            if of_weight.size:
                v, to_weight = _matrix(here, channels), _matrix(weight_part, channels)
                block(outputs, count, channels, _transposed(changes), v, to_weight, to_weight)
                _collected(part, line == lines - 1 and p + most >= points, weight_part, of_weight)
                part += 1
                _add_rows(mixed[at * outputs : (at + count) * outputs], sums, of_bias)
            if gated.size:
                change = gated[begin:end]
                for i in range(count):
                    for j in range(channels):
                        result[i * channels + j] += change[i * channels + j] * gate[j]
                if of_gate.size:
                    for i in range(change.size):
                        room[i] = here[i] * change[i]
                    _add_rows(room[: change.size], sums, of_gate)
                    _add_rows(change, sums, of_shift)
            if activate:
                gelu_backward(given, result)


@_fused
def sweep(  # type: ignore[no-untyped-def]
    lines, points, channels, kept, hidden, v, synthesis, rows, weight, bias,
    first, first_bias, second, gate, shift, activate, analysis, found,
):  # fmt: skip
    """Take the lines of a function through a layer, in place, and find their Fourier coefficients if asked to.

    With y = W v + b + S c and, of hidden channels, y = gate v + shift + W2 gelu(W1 gelu(y) + b1), v becomes gelu(y)
    and its coefficients A v. Those two gelu are left out on demand.

    Parameters
    ----------
    lines, points, channels, kept, hidden : int
        Kept are the real and imaginary parts along a line.
    v : array, shape (lines, points, channels)
    synthesis, rows : arrays, shapes (points, kept) and (lines, kept, channels)
        S and c.
    weight, bias : arrays, shapes (channels, channels) and (channels,)
        W transposed, b.
    first, first_bias, second, gate, shift : arrays
        W1 transposed, b1, W2 transposed; of no hidden channels any.
    activate : bool
        Whether there is a gelu before W1 and at the end.
    analysis, found : arrays, shapes (points, kept) and (lines, kept, channels)
        A transposed, and where its results go; of no ``found`` they are not computed.
    """
    most = _part(points)
    y, h = np.empty(most * channels, np.float32), np.empty(most * hidden, np.float32)
    zero = np.zeros(channels, np.float32)
    of_y, of_h = _matrix(y, channels), _matrix(h, hidden)
    w, b, w1, b1 = _matrix(weight, channels), _matrix(bias, 0), _matrix(first, hidden), _matrix(first_bias, 0)
    w2 = _matrix(second, channels)
    for line in range(lines):
        c = start_at(_matrix(rows, channels), line * kept, 0)
        new_c = start_at(_matrix(found, channels), line * kept, 0)
        for p in range(0, points, most):
            count, at = min(most, points - p), line * points + p
            numbers = count * channels
            values = v[at * channels : at * channels + numbers]
            here = _matrix(values, channels)
            block(count, channels, channels, here, w, b, of_y)
            block(count, kept, channels, start_at(_matrix(synthesis, kept), p, 0), c, of_y, of_y)
            if hidden:
                if activate:
                    gelu_in_place(y[:numbers])
                block(count, channels, hidden, of_y, w1, b1, of_h)
                gelu_in_place(h[: count * hidden])
                for i in range(count):
                    for j in range(channels):
                        y[i * channels + j] = values[i * channels + j] * gate[j] + shift[j]
                block(count, hidden, channels, of_h, w2, of_y, of_y)
            if activate:
                gelu_forward(y[:numbers], values)
            else:
                values[:] = y[:numbers]
            if found.size:
                back = _transposed(start_at(_matrix(analysis, kept), p, 0))
                block(kept, count, channels, back, here, _matrix(zero, 0) if p == 0 else new_c, new_c)
