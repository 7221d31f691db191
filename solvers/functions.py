"""Data functions: numbers or callables of position, checked where they are evaluated."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciml.errors import ConfigError

__all__ = [
    "AtTime",
    "DataFunction",
    "Expression",
    "at_time",
    "coordinates",
    "derivative",
    "evaluate",
    "expect",
    "takes_time",
]

DataFunction = float | Callable[..., np.ndarray]
"""A constant, or a function ``f(x, y)`` (``f(x, y, z)`` in 3D) of equally shaped coordinate arrays."""


class Expression:
    """A function of position given by a sympy expression; it can be pickled and printed.

    Parameters
    ----------
    expression : sympy.Expr or str
        In the symbols ``x``, ``y`` and, in 3D, ``z``. Text is evaluated by sympy, which can run any
        code: never pass text that you do not trust.
    symbols : tuple of sympy.Symbol
        The coordinates, in axis order.

    Raises
    ------
    ConfigError
        If the expression cannot be read or holds other symbols.

    Examples
    --------
    >>> import sympy
    >>> f = Expression("exp(x) * y", sympy.symbols("x y"))
    >>> float(f(0.0, 2.0))
    2.0
    """

    def __init__(self, expression: object, symbols: tuple) -> None:
        import sympy

        self.symbols = tuple(symbols)
        names = {symbol.name: symbol for symbol in self.symbols}
        try:
            parsed = sympy.sympify(expression, locals=names)
            if not isinstance(parsed, sympy.Expr):
                raise TypeError(f"it is a {type(parsed).__name__}")
        except (sympy.SympifyError, AttributeError, TypeError, SyntaxError) as error:
            raise ConfigError(
                f"expression {str(expression)!r} cannot be read: use sympy's notation"
            ) from error
        # A user's own Symbol("x") differs from ours in its assumptions only.
        self.expression = parsed.subs({s: names[s.name] for s in parsed.free_symbols if s.name in names})
        strangers = self.expression.free_symbols - set(self.symbols)
        if strangers:
            raise ConfigError(
                f"expression {expression!s} contains {', '.join(sorted(map(str, strangers)))}: "
                f"use only {', '.join(names)}"
            )
        self._function = sympy.lambdify(self.symbols, self.expression, "numpy")

    def __call__(self, *coordinates: np.ndarray) -> np.ndarray:
        """Evaluate; coordinates and result share one shape."""
        return np.broadcast_to(self._function(*coordinates), np.shape(coordinates[0]))

    @property
    def takes_time(self) -> bool:
        """Whether t is one of the symbols."""
        return any(symbol.name == "t" for symbol in self.symbols)

    def __reduce__(self) -> tuple:
        # lambdify makes a closure that cannot be pickled; the expression can.
        return (Expression, (self.expression, self.symbols))

    def __repr__(self) -> str:
        return f"Expression({self.expression})"


@dataclass(frozen=True)
class AtTime:
    """A function of position and time at one time: f(x, y, t, ...) as a function of (x, y, ...)."""

    function: Callable
    time: float
    dim: int

    def __call__(self, *arguments: np.ndarray) -> np.ndarray:
        """Evaluate at the time."""
        return np.asarray(self.function(*arguments[: self.dim], self.time, *arguments[self.dim :]))


def takes_time(function: object, arguments: int) -> bool:
    """Return whether a data function takes the time in addition to a number of other arguments.

    Examples
    --------
    >>> takes_time(lambda x, y: x, 2), takes_time(lambda x, y, t: x, 2), takes_time(1.0, 2)
    (False, True, False)
    """
    if not callable(function):
        return False
    known = getattr(function, "takes_time", None)
    if known is not None:
        return bool(known)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    if {"t", "time"} & {p.name for p in parameters}:
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in positional if p.default is p.empty]) == arguments + 1


def at_time(function: Any, time: float, dim: int, arguments: int | None = None) -> Any:
    """Return a data function of position (and of the normal: ``arguments`` in all) at a time."""
    timed = takes_time(function, dim if arguments is None else arguments)
    return AtTime(function, time, dim) if timed else function


def coordinates(dim: int) -> tuple:
    """Return the symbols x, y, z, as many as there are axes."""
    import sympy

    return tuple(sympy.symbols("x y z", real=True)[:dim])


@dataclass(frozen=True)
class _ComplexStep:
    """The derivative of an analytic function along one axis, Im f(x + i eps) / eps."""

    function: Callable
    axis: int

    def __call__(self, *position: np.ndarray) -> np.ndarray:
        tiny = 1e-30
        shifted = [np.asarray(x) + (1j * tiny if d == self.axis else 0.0) for d, x in enumerate(position)]
        step = 1e-6 * (1.0 + float(np.abs(position[self.axis]).max(initial=0.0)))
        try:
            raw = np.asarray(self.function(*shifted))
            exact = raw.imag / tiny
            near = [np.asarray(x) + (step if d == self.axis else 0.0) for d, x in enumerate(position)]
            forward = (np.asarray(self.function(*near)) - raw.real) / step
        except TypeError as error:
            raise ConfigError(
                f"coefficient {self.function} cannot be differentiated: give gradient="
            ) from error
        # NaN beyond the domain's end says nothing; a wrong derivative shows at most other points.
        sizes = np.maximum(np.abs(forward), np.abs(exact))
        largest = float(np.max(sizes, where=np.isfinite(sizes), initial=0.0))
        wrong = np.abs(forward - exact) > 1e-2 * largest + 1e-9 * np.abs(raw.real)
        if np.sum(wrong) > 0.1 * wrong.size:
            raise ConfigError(
                f"coefficient {self.function} is not made of analytic operations: give gradient="
            )
        return exact


def derivative(function: DataFunction, axis: int, dim: int) -> DataFunction:
    """Return a data function's derivative along an axis: symbolic, or by complex steps."""
    if isinstance(function, Expression):
        import sympy

        symbols = function.symbols[:dim]
        return Expression(sympy.diff(function.expression, symbols[axis]), function.symbols)
    return _ComplexStep(function, axis) if callable(function) else 0.0


def evaluate(function: DataFunction, points: np.ndarray, name: str) -> np.ndarray:
    """Evaluate a data function at points and refuse what cannot be used.

    Parameters
    ----------
    function : float or callable
        Called as ``function(x, y)`` with one array of shape (m,) per axis.
    points : ndarray, shape (m, D)
        Positions.
    name : str
        What the function is ("source", "Dirichlet data"), for the message.

    Returns
    -------
    ndarray, shape (m,), float64

    Raises
    ------
    ConfigError
        If the result has another shape, is not real, or is not finite (the message says where).
    """
    if isinstance(function, float | int) and math.isfinite(function):
        return np.full(len(points), float(function))
    try:
        raw = function(*points.T) if callable(function) else function
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be evaluated ({error}): it is called with {points.shape[1]} arrays of {len(points)} "
            "numbers, and must work on arrays (np.sin for math.sin, np.where for if)"
        ) from error
    try:
        if raw is None:
            raise TypeError("no value")
        if np.iscomplexobj(raw):
            raise TypeError("complex values")
        values = np.array(raw, dtype=float)
        if values.shape != points.shape[:1]:
            values = np.broadcast_to(values, points.shape[:1]).copy()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} returned {type(raw).__name__} of shape {np.shape(raw)} for {len(points)} points: "
            "return one real number per point"
        ) from error
    finite = np.isfinite(values)
    if not finite.all():
        bad = ~finite
        first = int(np.argmax(bad))
        raise ConfigError(
            f"{name} is {values[first]} at {tuple(round(float(c), 6) for c in points[first])} "
            f"({int(bad.sum())} of {len(points)} points are not finite): define it on the whole domain"
        )
    return values


def expect(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Refuse an argument of the wrong type.

    Raises
    ------
    ConfigError
        That names the argument, the value and a remedy.

    Examples
    --------
    >>> expect("grid", 40, tuple, "(40, 40)")
    Traceback (most recent call last):
    sciml.errors.ConfigError: grid=40 is no tuple: (40, 40)
    """
    if not isinstance(value, kind):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigError(f"{name}={value!r} is no {wanted}: {remedy}")
