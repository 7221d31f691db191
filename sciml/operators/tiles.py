"""Matrix products of float32 numbers by tiles that fit a processor's registers, compiled by numba (extra `fast`).

Operators multiply long arrays by small matrices, which libraries made for large ones do at half of what a processor
can. Here a tile of the result stays in registers while rows of the one factor and columns of the other pass by. Each
number of the result is summed in the same order whatever the size of the batch and the number of threads.

Arrays are given by addresses and strides in bytes, which are not checked; rows of b, start and c are contiguous.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from sciml.solvers.compiled.lanes import compiled

from .compiled import DIGEST, gelu_of
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
    def tile(context, terms, a, a_row, a_column, b, b_row, start, start_row, c, c_row):  # type: ignore[no-untyped-def]
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            terms, a, a_row, a_column, b, b_row, start, start_row, c, c_row = arguments
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

        return types.void(*[types.intp] * 10), emit

    return tile


def _columns(vectors: int, lanes: int) -> Callable[..., Any]:
    """Return a function that writes start + a b for any number of rows and so many vectors of columns."""
    six, two, one = (_tile(rows, vectors, lanes) for rows in (6, 2, 1))

    @njit(nogil=True)
    def columns(rows, terms, a, a_row, a_column, b, b_row, start, start_row, c, c_row):  # type: ignore[no-untyped-def]
        i = 0
        while i + 6 <= rows:
            six(
                terms,
                a + i * a_row,
                a_row,
                a_column,
                b,
                b_row,
                start + i * start_row,
                start_row,
                c + i * c_row,
                c_row,
            )
            i += 6
        while i + 2 <= rows:
            two(
                terms,
                a + i * a_row,
                a_row,
                a_column,
                b,
                b_row,
                start + i * start_row,
                start_row,
                c + i * c_row,
                c_row,
            )
            i += 2
        if i < rows:
            one(
                terms,
                a + i * a_row,
                a_row,
                a_column,
                b,
                b_row,
                start + i * start_row,
                start_row,
                c + i * c_row,
                c_row,
            )

    return columns


_two, _one, _half, _number = _columns(2, LANES), _columns(1, LANES), _columns(1, 4), _columns(1, 1)


@njit(nogil=True)
def _block(rows, terms, columns, a, a_row, a_column, b, b_row, start, start_row, c, c_row):  # type: ignore[no-untyped-def]
    j = 0
    while j + 2 * LANES <= columns:
        o = _BYTES * j
        _two(rows, terms, a, a_row, a_column, b + o, b_row, start + o, start_row, c + o, c_row)
        j += 2 * LANES
    while j + LANES <= columns:
        o = _BYTES * j
        _one(rows, terms, a, a_row, a_column, b + o, b_row, start + o, start_row, c + o, c_row)
        j += LANES
    while j + 4 <= columns:
        o = _BYTES * j
        _half(rows, terms, a, a_row, a_column, b + o, b_row, start + o, start_row, c + o, c_row)
        j += 4
    while j < columns:
        o = _BYTES * j
        _number(rows, terms, a, a_row, a_column, b + o, b_row, start + o, start_row, c + o, c_row)
        j += 1


@compiled
def multiply(  # type: ignore[no-untyped-def]
    batch, rows, terms, columns,
    a, a_batch, a_row, a_column, b, b_batch, b_row, start, start_batch, start_row, c, c_batch, c_row,
):  # fmt: skip
    """Write start + a b to c, which may be start: shapes (batch, rows, terms) and (batch, terms, columns)."""
    for n in range(batch):
        a_n, b_n, start_n, c_n = a + n * a_batch, b + n * b_batch, start + n * start_batch, c + n * c_batch
        for k in range(0, max(terms, 1), TERMS_AT_ONCE):
            some = min(TERMS_AT_ONCE, terms - k)
            a_k, b_k = a_n + k * a_column, b_n + k * b_row
            start_k, step = (start_n, start_row) if k == 0 else (c_n, c_row)
            for i in range(0, rows, ROWS_AT_ONCE):
                _block(
                    min(ROWS_AT_ONCE, rows - i), some, columns,
                    a_k + i * a_row, a_row, a_column, b_k, b_row, start_k + i * step, step, c_n + i * c_row, c_row,
                )  # fmt: skip


def _with_gelu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that contains `gelu_of`, which decides of its age, too."""
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
    of_h, to_h, to_x, to_out = h.ctypes.data, _BYTES * hidden, _BYTES * inputs, _BYTES * outputs
    step = 0 if start.size == outputs else outputs
    for p in range(0, points, POINTS_AT_ONCE):
        count = min(POINTS_AT_ONCE, points - p)
        given = x[p * inputs : (p + count) * inputs]
        of_v = given.ctypes.data
        if activate:
            for i in range(given.size):
                v[i] = gelu_of(given[i])
            of_v = v.ctypes.data
        _block(
            count,
            inputs,
            hidden,
            of_v,
            to_x,
            _BYTES,
            first.ctypes.data,
            to_h,
            bias.ctypes.data,
            0,
            of_h,
            to_h,
        )
        for i in range(count * hidden):
            h[i] = gelu_of(h[i])
        if outputs < NARROW:
            for i in range(count):
                values = h[i * hidden : (i + 1) * hidden]
                for j in range(outputs):
                    row = second[j * hidden : (j + 1) * hidden]
                    result[(p + i) * outputs + j] = start[(p + i) * step + j] + _dot(values, row)
        else:
            begin, to = start.ctypes.data + _BYTES * p * step, result.ctypes.data + p * to_out
            _block(
                *(count, hidden, outputs, of_h, to_h, _BYTES, across.ctypes.data, to_out),
                *(begin, _BYTES * step, to, to_out),
            )


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
    y, h, zero = (
        np.empty(most * channels, np.float32),
        np.empty(most * hidden, np.float32),
        np.zeros(channels, np.float32),
    )
    of_y, of_h = y.ctypes.data, h.ctypes.data
    across, kept_across, hidden_across = _BYTES * channels, _BYTES * kept, _BYTES * hidden
    for line in range(lines):
        c, to = rows.ctypes.data + line * kept * across, found.ctypes.data + line * kept * across
        for p in range(0, points, most):
            count = min(most, points - p)
            numbers = count * channels
            values = v[(line * points + p) * channels : (line * points + p + count) * channels]
            here, table = values.ctypes.data, synthesis.ctypes.data + p * kept_across
            _block(
                *(count, channels, channels, here, across, _BYTES, weight.ctypes.data, across),
                *(bias.ctypes.data, 0, of_y, across),
            )
            _block(count, kept, channels, table, kept_across, _BYTES, c, across, of_y, across, of_y, across)
            if hidden:
                if activate:
                    for i in range(numbers):
                        y[i] = gelu_of(y[i])
                _block(
                    *(count, channels, hidden, of_y, across, _BYTES, first.ctypes.data, hidden_across),
                    *(first_bias.ctypes.data, 0, of_h, hidden_across),
                )
                for i in range(count * hidden):
                    h[i] = gelu_of(h[i])
                for i in range(count):
                    given, result = (
                        values[i * channels : (i + 1) * channels],
                        y[i * channels : (i + 1) * channels],
                    )
                    for j in range(channels):
                        result[j] = given[j] * gate[j] + shift[j]
                _block(
                    *(count, hidden, channels, of_h, hidden_across, _BYTES, second.ctypes.data, across),
                    *(of_y, across, of_y, across),
                )
            if activate:
                for i in range(numbers):
                    values[i] = gelu_of(y[i])
            else:
                for i in range(numbers):
                    values[i] = y[i]
            if found.size:
                table = analysis.ctypes.data + p * kept_across
                start, step = (zero.ctypes.data, 0) if p == 0 else (to, across)
                _block(
                    kept, count, channels, table, _BYTES, kept_across, here, across, start, step, to, across
                )
