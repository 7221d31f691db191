"""Matrix products of float32 numbers by tiles that fit a processor's registers, compiled by numba (extra `fast`).

Operators multiply long arrays by small matrices, which libraries made for large ones do at half of what a processor
can. Here a tile of the result stays in registers while rows of the one factor and columns of the other pass by. Each
number of the result is summed in the same order whatever the size of the batch and the number of threads.

A matrix is a tuple of its address and the strides in bytes to the next row and column, which are not checked. Rows of
b, start and c are contiguous.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from sciml.solvers.compiled.lanes import compiled

from .compiled import DIGEST, gelu_forward, gelu_in_place
from .products import NARROW

__all__ = ["AVAILABLE", "mlp", "multiply", "sweep"]

_FEATURES = binding.get_host_cpu_features()
AVAILABLE = binding.get_default_triple().startswith("x86_64") and bool(_FEATURES.get("fma"))
"""Whether they are worth it here: elsewhere sums are not fused with products, or libraries are better."""
LANES = 16 if _FEATURES.get("avx512f") else 8
"""Numbers in a register."""
ROWS_AT_ONCE = 48
"""Of the result, for which columns of b stay in the cache."""
TERMS_AT_ONCE = 128
"""Of a sum, likewise."""
POINTS_AT_ONCE = 64
"""Of a line, for which all channels stay in the cache."""

_NUMBER, _INT = ir.FloatType(), ir.IntType(32)
_BYTES = 4


def _tile(rows: int, vectors: int, lanes: int) -> Any:
    """Return a function that writes start + a b for so many rows and vectors of columns of the result."""
    vector = ir.VectorType(_NUMBER, lanes)
    name, signature_of_fma = f"llvm.fma.v{lanes}f32", ir.FunctionType(vector, [vector] * 3)

    @intrinsic
    def tile(context, terms, a, b, start, c):  # type: ignore[no-untyped-def]
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            terms, *matrices = arguments
            parts = [cgutils.unpack_tuple(builder, matrix, 3) for matrix in matrices]
            (a, a_row, a_column), (b, b_row, _), (start, start_row, _), (c, c_row, _) = parts
            intp = terms.type

            def at(address: Any, kind: Any, offset: Any = None, times: int = 1, columns: int = 0) -> Any:
                if offset is not None and times:
                    address = builder.add(address, builder.mul(offset, intp(times)))
                return builder.inttoptr(builder.add(address, intp(_BYTES * columns)), kind.as_pointer())

            def load(pointer: Any) -> Any:
                value = builder.load(pointer)
                value.align = _BYTES
                return value

            def splat(number: Any) -> Any:
                empty = ir.Constant(vector, ir.Undefined)
                first = builder.insert_element(empty, number, _INT(0))
                return builder.shuffle_vector(
                    first, empty, ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
                )

            fma = builder.module.globals.get(name) or ir.Function(builder.module, signature_of_fma, name)
            places = [(i, v) for i in range(rows) for v in range(vectors)]
            # LLVM keeps them in registers.
            sums = {place: cgutils.alloca_once(builder, vector) for place in places}
            for i, v in places:
                builder.store(load(at(start, vector, start_row, i, lanes * v)), sums[i, v])
            with cgutils.for_range(builder, terms) as loop:
                row = builder.add(b, builder.mul(loop.index, b_row))
                column = builder.add(a, builder.mul(loop.index, a_column))
                of_b = [load(at(row, vector, columns=lanes * v)) for v in range(vectors)]
                for i in range(rows):
                    factor = splat(load(at(column, _NUMBER, a_row, i)))
                    for v in range(vectors):
                        found = builder.call(fma, [factor, of_b[v], builder.load(sums[i, v])])
                        builder.store(found, sums[i, v])
            for i, v in places:
                stored = builder.store(builder.load(sums[i, v]), at(c, vector, c_row, i, lanes * v))
                stored.align = _BYTES
            return context.get_dummy_value()

        return types.void(types.intp, *[types.UniTuple(types.intp, 3)] * 4), emit

    return tile


@njit(nogil=True)
def _from(matrix, row, column):  # type: ignore[no-untyped-def]
    """Return what begins at a row and column of a matrix."""
    address, to_row, to_column = matrix
    return address + row * to_row + column * to_column, to_row, to_column


def _down(height: int, tile: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that sets tiles below each other from row i, and returns the row where the next is too high."""

    @njit(nogil=True)
    def down(i, rows, terms, a, b, start, c):  # type: ignore[no-untyped-def]
        while i + height <= rows:
            tile(terms, _from(a, i, 0), b, _from(start, i, 0), _from(c, i, 0))
            i += height
        return i

    return down


def _across(vectors: int, lanes: int) -> Callable[..., Any]:
    """Return a function that does so to the right for all rows from column j, and returns the next column."""
    six, two, one = (_down(height, _tile(height, vectors, lanes)) for height in (6, 2, 1))

    @njit(nogil=True)
    def across(j, rows, terms, columns, a, b, start, c):  # type: ignore[no-untyped-def]
        while j + vectors * lanes <= columns:
            b_j, start_j, c_j = _from(b, 0, j), _from(start, 0, j), _from(c, 0, j)
            i = six(0, rows, terms, a, b_j, start_j, c_j)
            i = two(i, rows, terms, a, b_j, start_j, c_j)
            one(i, rows, terms, a, b_j, start_j, c_j)
            j += vectors * lanes
        return j

    return across


_two, _one, _half, _number = _across(2, LANES), _across(1, LANES), _across(1, 4), _across(1, 1)


@njit(nogil=True)
def _block(rows, terms, columns, a, b, start, c):  # type: ignore[no-untyped-def]
    """Write start + a b to c, which may be start."""
    j = _two(0, rows, terms, columns, a, b, start, c)
    j = _one(j, rows, terms, columns, a, b, start, c)
    j = _half(j, rows, terms, columns, a, b, start, c)
    _number(j, rows, terms, columns, a, b, start, c)


@njit(nogil=True)
def _packed(address, columns):  # type: ignore[no-untyped-def]
    """Return a matrix of so many columns whose rows follow each other; of 0 columns all rows are the first."""
    return address, _BYTES * columns, _BYTES


@compiled
def multiply(  # type: ignore[no-untyped-def]
    batch, rows, terms, columns,
    a, a_batch, a_row, a_column, b, b_batch, b_row, start, start_batch, start_row, c, c_batch, c_row,
):  # fmt: skip
    """Write start + a b to c, which may be start: shapes (batch, rows, terms) and (batch, terms, columns)."""
    for n in range(batch):
        a_n, b_n = (a + n * a_batch, a_row, a_column), (b + n * b_batch, b_row, _BYTES)
        start_n, c_n = (start + n * start_batch, start_row, _BYTES), (c + n * c_batch, c_row, _BYTES)
        for k in range(0, max(terms, 1), TERMS_AT_ONCE):
            some, so_far = min(TERMS_AT_ONCE, terms - k), start_n if k == 0 else c_n
            for i in range(0, rows, ROWS_AT_ONCE):
                a_k, b_k = _from(a_n, i, k), _from(b_n, k, 0)
                start_k, c_i = _from(so_far, i, 0), _from(c_n, i, 0)
                _block(min(ROWS_AT_ONCE, rows - i), some, columns, a_k, b_k, start_k, c_i)


def _with_gelu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that contains GELU, which decides of its age, too."""
    function.__qualname__ += f"_{DIGEST}"
    return compiled(function)


@njit(nogil=True, fastmath={"contract", "reassoc"})
def _dot(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0.0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_with_gelu
def mlp(  # type: ignore[no-untyped-def]
    inputs, hidden, outputs, x, first, bias, second, across, start, result, activate,
):  # fmt: skip
    """Write start + W2 gelu(W1 v + b1) to the result, v = x or gelu(x).

    Parameters
    ----------
    inputs, hidden, outputs : int
    x, result : arrays, shapes (points * inputs,) and (points * outputs,)
    first, bias, second, across : arrays
        W1 transposed, b1, W2, W2 transposed; each of one axis.
    start : array, shape (outputs,) or that of the result, which it may be
    activate : bool
        Whether v is gelu(x).
    """
    points = x.size // inputs
    v, h = np.empty(POINTS_AT_ONCE * inputs, np.float32), np.empty(POINTS_AT_ONCE * hidden, np.float32)
    w1, b1 = _packed(first.ctypes.data, hidden), _packed(bias.ctypes.data, 0)
    w2, of_hidden = _packed(across.ctypes.data, outputs), _packed(h.ctypes.data, hidden)
    step = 0 if start.size == outputs else outputs
    initial, written = _packed(start.ctypes.data, step), _packed(result.ctypes.data, outputs)
    for p in range(0, points, POINTS_AT_ONCE):
        count = min(POINTS_AT_ONCE, points - p)
        given = x[p * inputs : (p + count) * inputs]
        if activate:
            gelu_forward(given, v)
            given = v
        _block(count, inputs, hidden, _packed(given.ctypes.data, inputs), w1, b1, of_hidden)
        gelu_in_place(h[: count * hidden])
        if outputs < NARROW:
            for i in range(count):
                values = h[i * hidden : (i + 1) * hidden]
                for j in range(outputs):
                    row = second[j * hidden : (j + 1) * hidden]
                    result[(p + i) * outputs + j] = start[(p + i) * step + j] + _dot(values, row)
        else:
            _block(count, hidden, outputs, of_hidden, w2, _from(initial, p, 0), _from(written, p, 0))


@_with_gelu
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
    v : array, shape (lines * points * channels,)
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
    parts = (points + POINTS_AT_ONCE - 1) // POINTS_AT_ONCE
    most = 6 * (((points + parts - 1) // parts + 5) // 6)
    y, h = np.empty(most * channels, np.float32), np.empty(most * hidden, np.float32)
    zero = np.zeros(channels, np.float32)
    of_y, of_hidden = _packed(y.ctypes.data, channels), _packed(h.ctypes.data, hidden)
    w, b = _packed(weight.ctypes.data, channels), _packed(bias.ctypes.data, 0)
    w1, b1 = _packed(first.ctypes.data, hidden), _packed(first_bias.ctypes.data, 0)
    w2 = _packed(second.ctypes.data, channels)
    to_values, transposed = _packed(synthesis.ctypes.data, kept), _packed(analysis.ctypes.data, kept)
    for line in range(lines):
        c = _from(_packed(rows.ctypes.data, channels), line * kept, 0)
        new_c = _from(_packed(found.ctypes.data, channels), line * kept, 0)
        for p in range(0, points, most):
            count = min(most, points - p)
            numbers, begin = count * channels, (line * points + p) * channels
            values = v[begin : begin + numbers]
            here = _packed(values.ctypes.data, channels)
            _block(count, channels, channels, here, w, b, of_y)
            _block(count, kept, channels, _from(to_values, p, 0), c, of_y, of_y)
            if hidden:
                if activate:
                    gelu_in_place(y[:numbers])
                _block(count, channels, hidden, of_y, w1, b1, of_hidden)
                gelu_in_place(h[: count * hidden])
                for i in range(count):
                    for j in range(channels):
                        y[i * channels + j] = values[i * channels + j] * gate[j] + shift[j]
                _block(count, hidden, channels, of_hidden, w2, of_y, of_y)
            if activate:
                gelu_forward(y[:numbers], values)
            else:
                values[:] = y[:numbers]
            if found.size:
                address, to_point, to_row = _from(transposed, p, 0)
                # Here, for what is not used by its name any more is given back.
                so_far = _packed(zero.ctypes.data, 0) if p == 0 else new_c
                _block(kept, count, channels, (address, to_row, to_point), here, so_far, new_c)
