"""Eight complex numbers at a time, for loops that numba compiles.

A value of type `Lanes` keeps real and imaginary parts in a vector each, which LLVM maps to the registers
of the processor. Compilers seldom vectorise loops over complex numbers by themselves, and never those in
which they cannot tell that rows of an array do not overlap. Sums are not reordered, nor contracted with
products, so that all processors compute the same bits, and no lane depends on another.

Arrays are one-dimensional, contiguous and complex; indices count complex numbers and are not checked.
"""

import hashlib
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, overload, register_model

__all__ = [
    "WIDTH",
    "compiled",
    "conjugated",
    "gather",
    "load",
    "packed",
    "read",
    "scatter",
    "squares",
    "store",
    "swapped",
    "turned",
    "write",
]

WIDTH = 8
_EVEN, _ODD = range(0, 2 * WIDTH, 2), range(1, 2 * WIDTH, 2)
_PAIRED = [part for lane in range(WIDTH) for part in (lane, WIDTH + lane)]
_INT = ir.IntType(32)
_DIGEST = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile a function for the types it is called with, once and for all where a cache can be kept."""
    # numba looks at the age of the function's own file only, which this one's contents decide, too.
    function.__qualname__ += f"_{_DIGEST}"
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        # No folder to write it to, neither the package's nor the user's.
        return njit(nogil=True, **options)(function)


def packed(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return values in the form for which kernels are compiled: in C order, aligned and writable.

    Examples
    --------
    >>> packed(np.broadcast_to(1.0, (2, 8)), np.dtype(complex)).flags.carray
    True
    """
    if values.dtype == dtype and values.flags.carray:
        return values
    return np.require(values, dtype, ["C", "A", "W"])


class Lanes(types.Type):
    """The type of eight complex numbers."""

    def __init__(self, dtype: types.Complex) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


def _vector(dtype: Any, size: int = WIDTH) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if dtype == types.complex64 else ir.DoubleType(), size)


@register_model(Lanes)
class _LanesModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.ArrayType(_vector(kind.dtype), 2))


def _parts(builder: Any, lanes: Any) -> tuple[Any, Any]:
    return builder.extract_value(lanes, 0), builder.extract_value(lanes, 1)


def _joined(builder: Any, re: Any, im: Any) -> Any:
    empty = ir.Constant(ir.ArrayType(re.type, 2), ir.Undefined)
    return builder.insert_value(builder.insert_value(empty, re, 0), im, 1)


def _shuffled(builder: Any, first: Any, second: Any, order: Any) -> Any:
    mask = list(order)
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT, len(mask)), mask))


def _splat(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    empty = ir.Constant(vector, ir.Undefined)
    return _shuffled(builder, builder.insert_element(empty, number, _INT(0)), empty, [0] * WIDTH)


def _operation(symbol: Callable, emit: Callable, accepts: Callable[[Any, Any], bool]) -> None:
    """Define a binary operator whose right operand is Lanes."""

    @intrinsic
    def apply(context: Any, first: Any, second: Any) -> Any:
        return second(first, second), emit

    @overload(symbol)
    def resolve(first, second):
        if isinstance(second, Lanes) and accepts(first, second):

            def implementation(first, second):
                return apply(first, second)

            # Kernels from caches share functions of equal names.
            implementation.__qualname__ = f"{symbol.__name__}_{_DIGEST}"
            return implementation
        return None


def _elementwise(method: str) -> Callable:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(*(_parts(builder, lanes) for lanes in args), strict=True)
        return _joined(builder, *(getattr(builder, method)(x, y) for x, y in pairs))

    return emit


def _product(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind, lanes = signature.args
    re, im = _parts(builder, args[1])
    if isinstance(kind, types.Float):
        scale = context.cast(builder, args[0], kind, lanes.dtype.underlying_float)
        c = _splat(builder, scale, re.type)
        return _joined(builder, builder.fmul(c, re), builder.fmul(c, im))
    if isinstance(kind, types.Complex):
        number = context.make_complex(builder, kind, value=args[0])
        c, s = (_splat(builder, part, re.type) for part in (number.real, number.imag))
    else:
        c, s = _parts(builder, args[0])
    real = builder.fsub(builder.fmul(c, re), builder.fmul(s, im))
    return _joined(builder, real, builder.fadd(builder.fmul(s, re), builder.fmul(c, im)))


_operation(operator.add, _elementwise("fadd"), lambda first, second: first == second)
_operation(operator.sub, _elementwise("fsub"), lambda first, second: first == second)
# A real number, a complex one for all lanes, or one for each.
_operation(
    operator.mul,
    _product,
    lambda first, lanes: isinstance(first, types.Float) or first in (lanes, lanes.dtype),
)


@intrinsic
def turned(context: Any, lanes: Any) -> Any:
    """Return i z."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        re, im = _parts(builder, args[0])
        return _joined(builder, builder.fneg(im), re)

    return lanes(lanes), emit


@intrinsic
def swapped(context: Any, lanes: Any) -> Any:
    """Return im z + i re z."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        re, im = _parts(builder, args[0])
        return _joined(builder, im, re)

    return lanes(lanes), emit


@intrinsic
def conjugated(context: Any, lanes: Any) -> Any:
    """Return re z - i im z."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        re, im = _parts(builder, args[0])
        return _joined(builder, re, builder.fneg(im))

    return lanes(lanes), emit


@intrinsic
def squares(context: Any, lanes: Any) -> Any:
    """Return (re z)^2 + i (im z)^2."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _joined(builder, *(builder.fmul(part, part) for part in _parts(builder, args[0])))

    return lanes(lanes), emit


class _Memory:
    """Loads and stores of parts of an array, at the alignment of its numbers."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder, self.dtype = builder, signature.args[0].dtype
        self.data = context.make_array(signature.args[0])(context, builder, args[0]).data
        self.align = self.dtype.bitwidth // 16

    def place(self, index: Any, size: int) -> Any:
        vector = _vector(self.dtype, size).as_pointer()
        return self.builder.bitcast(self.builder.gep(self.data, [index]), vector)

    def load(self, index: Any, size: int = WIDTH, offset: int = 0) -> Any:
        place = self.builder.gep(self.place(index, size), [_INT(offset)])
        return self.builder.load(place, align=self.align)

    def store(self, index: Any, vector: Any, offset: int = 0) -> None:
        place = self.builder.gep(self.place(index, vector.type.count), [_INT(offset)])
        self.builder.store(vector, place, align=self.align)

    def row(self, index: Any) -> Any:
        return self.builder.mul(index, index.type(WIDTH))

    def indices(self, first: Any, stride: Any, last: Any) -> Iterator[Any]:
        for lane in range(WIDTH):
            number = first.type(lane)
            number = self.builder.select(self.builder.icmp_signed("<", number, last), number, last)
            yield self.builder.add(first, self.builder.mul(number, stride))


@intrinsic
def read(context: Any, array: Any, row: Any) -> Any:
    """Return row `row` of a buffer: what `write` put there, in an order of its own."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        return _joined(builder, *(memory.load(memory.row(args[1]), offset=part) for part in (0, 1)))

    return Lanes(array.dtype)(array, types.intp), emit


@intrinsic
def write(context: Any, array: Any, row: Any, lanes: Any) -> Any:
    """Write row `row` of a buffer, the numbers from 8 row."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        for offset, part in enumerate(_parts(builder, args[2])):
            memory.store(memory.row(args[1]), part, offset)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), emit


@intrinsic
def load(context: Any, array: Any, index: Any) -> Any:
    """Return the eight numbers from `index`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        low, high = memory.load(args[1]), memory.load(args[1], offset=1)
        return _joined(builder, *(_shuffled(builder, low, high, order) for order in (_EVEN, _ODD)))

    return Lanes(array.dtype)(array, types.intp), emit


@intrinsic
def store(context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Set the eight numbers from `index`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        parts = _parts(builder, args[2])
        for half, order in enumerate((_PAIRED[:WIDTH], _PAIRED[WIDTH:])):
            memory.store(args[1], _shuffled(builder, *parts, order), half)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), emit


@intrinsic
def gather(context: Any, array: Any, index: Any, stride: Any, last: Any) -> Any:
    """Return the numbers at index + stride * min(lane, last)."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        groups = [memory.load(place, 2) for place in memory.indices(*args[1:])]
        while len(groups) > 2:
            order = range(2 * groups[0].type.count)
            pairs = zip(groups[::2], groups[1::2], strict=True)
            groups = [_shuffled(builder, first, second, order) for first, second in pairs]
        low, high = groups
        return _joined(builder, *(_shuffled(builder, low, high, order) for order in (_EVEN, _ODD)))

    return Lanes(array.dtype)(array, types.intp, types.intp, types.intp), emit


@intrinsic
def scatter(context: Any, array: Any, index: Any, stride: Any, last: Any, lanes: Any) -> Any:
    """Set the numbers at index + stride * min(lane, last), to equal ones where they coincide."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        parts = _parts(builder, args[4])
        for lane, place in enumerate(memory.indices(*args[1:4])):
            memory.store(place, _shuffled(builder, *parts, (lane, WIDTH + lane)))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, lanes), emit
