"""Matrix products of float32 numbers by tiles that fit a processor's registers, compiled by numba (extra `fast`).

Operators multiply long arrays by small matrices, which libraries made for large ones do at half of what a processor
can. Here a tile of the result stays in registers while rows of the one factor and columns of the other pass by. Each
number of the result is summed in the same order whatever the size of the batch and the number of threads.

A matrix is a tuple of its address and the strides in bytes to the next row and column, which are not checked. Rows of
b, start and c are contiguous.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from sciml.solvers.compiled.lanes import compiled

__all__ = ["AVAILABLE", "DIGEST", "TILE", "block", "multiply", "packed", "start_at"]

_FEATURES = binding.get_host_cpu_features()
AVAILABLE = binding.get_default_triple().startswith("x86_64") and bool(_FEATURES.get("fma"))
"""Whether they are worth it here: elsewhere sums are not fused with products, or libraries are better."""
LANES = 16 if _FEATURES.get("avx512f") else 8
"""Numbers in a register."""
TILE = 6
"""Rows of the highest."""
ROWS_AT_ONCE = 48
"""Of the result, for which columns of b stay in the cache."""
TERMS_AT_ONCE = 128
"""Of a sum, likewise."""
DIGEST = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
"""Of what is in this file, for caches of kernels that it is a part of."""

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
def start_at(matrix, row, column):  # type: ignore[no-untyped-def]
    """Return the part of a matrix that begins at a row and column."""
    address, to_row, to_column = matrix
    return address + row * to_row + column * to_column, to_row, to_column


def _named(function: Callable[..., Any], *sizes: int) -> Callable[..., Any]:
    """Compile one of several functions of a name.

    Kernels that are read from a cache share functions of equal names, which numba only numbers, in each process anew:
    without its sizes in its name a kernel of one process may get another one's function of other sizes.
    """
    function.__qualname__ = f"{function.__name__}_{'x'.join(map(str, sizes))}_{DIGEST}"
    return njit(nogil=True)(function)


def _down(height: int, vectors: int, lanes: int) -> Callable[..., Any]:
    """Return a function that sets tiles below each other from row i, and returns the row where the next is too high."""
    tile = _tile(height, vectors, lanes)

    def down(i, rows, terms, a, b, start, c):  # type: ignore[no-untyped-def]
        while i + height <= rows:
            tile(terms, start_at(a, i, 0), b, start_at(start, i, 0), start_at(c, i, 0))
            i += height
        return i

    return _named(down, height, vectors, lanes)


def _across(vectors: int, lanes: int) -> Callable[..., Any]:
    """Return a function that does so to the right for all rows from column j, and returns the next column."""
    high, two, one = (_down(height, vectors, lanes) for height in (TILE, 2, 1))

    def across(j, rows, terms, columns, a, b, start, c):  # type: ignore[no-untyped-def]
        while j + vectors * lanes <= columns:
            b_j, start_j, c_j = start_at(b, 0, j), start_at(start, 0, j), start_at(c, 0, j)
            i = high(0, rows, terms, a, b_j, start_j, c_j)
            i = two(i, rows, terms, a, b_j, start_j, c_j)
            one(i, rows, terms, a, b_j, start_j, c_j)
            j += vectors * lanes
        return j

    return _named(across, vectors, lanes)


_two, _one, _half, _number = _across(2, LANES), _across(1, LANES), _across(1, 4), _across(1, 1)


@njit(nogil=True)
def block(rows, terms, columns, a, b, start, c):  # type: ignore[no-untyped-def]
    """Write start + a b to c, which may be start."""
    j = _two(0, rows, terms, columns, a, b, start, c)
    j = _one(j, rows, terms, columns, a, b, start, c)
    j = _half(j, rows, terms, columns, a, b, start, c)
    _number(j, rows, terms, columns, a, b, start, c)


@njit(nogil=True)
def packed(address, columns):  # type: ignore[no-untyped-def]
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
                a_k, b_k = start_at(a_n, i, k), start_at(b_n, k, 0)
                start_k, c_i = start_at(so_far, i, 0), start_at(c_n, i, 0)
                block(min(ROWS_AT_ONCE, rows - i), some, columns, a_k, b_k, start_k, c_i)
