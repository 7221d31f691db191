"""Linear second-order operators, L u = A : grad grad u + b . grad u + c u, and div(a grad u)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

from .functions import DataFunction, Expression, coordinates, derivative, evaluate

__all__ = ["DifferentialOperator", "DivAGrad", "EllipticOperator", "Laplacian"]

Coefficient = DataFunction | str


@dataclass(frozen=True)
class DifferentialOperator:
    """The operator sum_ij A_ij d_i d_j u + sum_i b_i d_i u + c u, of any type.

    Every coefficient is a number, a function of position ``a(x, y)``, or an expression as text.

    Parameters
    ----------
    second : tuple of tuples, D x D
        A, symmetric; u_xx + u_xy + 2 u_yy is ((1, 0.5), (0.5, 2)).
    first : tuple, length D, optional
        b, zero by default.
    zeroth : coefficient, optional
        c, zero by default.

    Examples
    --------
    >>> rotation = DifferentialOperator(((0.0, 0.0), (0.0, 0.0)), first=("-y", "x"))
    >>> rotation.coefficients(np.array([[1.0, 0.5]]))[1].tolist()
    [[-0.5, 1.0]]
    """

    second: tuple[tuple[Coefficient, ...], ...]
    first: tuple[Coefficient, ...] = ()
    zeroth: Coefficient = 0.0

    def __post_init__(self) -> None:
        dim = len(self.second)
        if not 1 <= dim <= 3 or any(len(row) != dim for row in self.second):
            raise ConfigError(f"operator second={self.second}: give a symmetric D x D matrix")
        first = self.first or (0.0,) * dim
        if len(first) != dim:
            raise ConfigError(f"operator first={self.first}: give {dim} coefficients")
        object.__setattr__(self, "second", tuple(tuple(map(self._parsed, row)) for row in self.second))
        object.__setattr__(self, "first", tuple(map(self._parsed, first)))
        object.__setattr__(self, "zeroth", self._parsed(self.zeroth))
        if not any(callable(value) for row in self.second for value in row):
            self._second(np.zeros((1, dim)))

    def _parsed(self, value: Coefficient) -> DataFunction:
        if not isinstance(value, str):
            return value
        parsed = Expression(value, coordinates(self.dim))
        return float(parsed.expression) if parsed.expression.is_number else parsed

    @property
    def dim(self) -> int:
        """Number of space dimensions, D."""
        return len(self.second)

    @property
    def constant(self) -> bool:
        """Whether no coefficient depends on position."""
        return not any(callable(c) for row in (*self.second, self.first, (self.zeroth,)) for c in row)

    @property
    def annihilates_constants(self) -> bool:
        """Whether L 1 = 0 for certain: the zeroth coefficient is the number zero."""
        return not callable(self.zeroth) and self.zeroth == 0

    def _second(self, points: np.ndarray) -> np.ndarray:
        """Evaluate A and check it."""
        dim = self.dim
        second = np.empty((len(points), dim, dim))
        for i in range(dim):
            for j in range(dim):
                second[:, i, j] = evaluate(self.second[i][j], points, f"operator second[{i}][{j}]")  # type: ignore[arg-type]
        scale = np.abs(second).max(axis=(1, 2), initial=0.0)
        asymmetry = np.abs(second - np.swapaxes(second, 1, 2)).max(axis=(1, 2), initial=0.0)
        if (asymmetry > 1e-12 * scale).any():
            raise ConfigError(f"operator second={self.second}: give a symmetric D x D matrix")
        return second

    def coefficients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate A, b and c at points of shape (m, D).

        Returns
        -------
        second : ndarray, shape (m, D, D)
        first : ndarray, shape (m, D)
        zeroth : ndarray, shape (m,)

        Raises
        ------
        ConfigError
            If a value is not finite, A is not symmetric or, for an elliptic operator, not positive
            definite somewhere.
        """
        first = [
            evaluate(value, points, f"operator first[{i}]")  # type: ignore[arg-type]
            for i, value in enumerate(self.first)
        ]
        zeroth = evaluate(self.zeroth, points, "operator zeroth")  # type: ignore[arg-type]
        return self._second(points), np.stack(first, axis=1), zeroth

    def monomial_coefficients(
        self, exponents: np.ndarray, spacing: np.ndarray, points: np.ndarray
    ) -> np.ndarray:
        """Return L applied, at each point, to the monomials of xi = (x - point) / h.

        Parameters
        ----------
        exponents : ndarray of int, shape (N, D)
            Multi-indices e of the monomials xi^e.
        spacing : ndarray, shape (D,)
            h along each axis.
        points : ndarray, shape (m, D)

        Returns
        -------
        ndarray, shape (m, N)
            Zero but for |e| <= 2: a derivative at the point is one Taylor coefficient.
        """
        second, first, zeroth = self.coefficients(points)
        values = np.zeros((len(points), len(exponents)))
        for row, e in enumerate(exponents):
            axes = np.repeat(np.arange(self.dim), e)
            if len(axes) == 0:
                values[:, row] = zeroth
            elif len(axes) == 1:
                values[:, row] = first[:, axes[0]] / spacing[axes[0]]
            elif len(axes) == 2:
                # A_ij and A_ji make 2 A_ij for i != j; the second derivative of xi_i^2 makes 2 A_ii.
                i, j = axes
                values[:, row] = 2.0 * second[:, i, j] / (spacing[i] * spacing[j])
        return values

    def apply_to(self, expression: object, symbols: tuple) -> object:
        """Apply the operator to a sympy expression in the given coordinates.

        Raises
        ------
        ConfigError
            If a coefficient is a function without an expression.
        """
        import sympy

        def symbolic(coefficient: Coefficient) -> sympy.Expr:
            value = self._parsed(coefficient)
            if isinstance(value, Expression):
                return value.expression
            if callable(value):
                raise ConfigError(
                    f"coefficient {value} has no expression, which a manufactured source needs: give it as text, or "
                    "state the source yourself"
                )
            return sympy.Integer(int(value)) if value == int(value) else sympy.Float(value)

        result = symbolic(self.zeroth) * expression
        for i, x in enumerate(symbols):
            result += symbolic(self.first[i]) * sympy.diff(expression, x)
            for j, y in enumerate(symbols):
                result += symbolic(self.second[i][j]) * sympy.diff(expression, x, y)
        return result


@dataclass(frozen=True)
class EllipticOperator(DifferentialOperator):
    """A `DifferentialOperator` with A positive definite everywhere.

    Raises
    ------
    ConfigError
        If A is not symmetric positive definite: the operator is then not elliptic. Coefficients that
        vary are checked where they are evaluated.

    Examples
    --------
    >>> operator = EllipticOperator(((1.0, "x*y/2"), ("x*y/2", 2.0)), zeroth=-1.0)
    >>> operator.coefficients(np.array([[1.0, 0.5]]))[0].tolist()
    [[[1.0, 0.25], [0.25, 2.0]]]
    """

    def _second(self, points: np.ndarray) -> np.ndarray:
        second = super()._second(points)
        smallest = np.linalg.eigvalsh(second)[:, 0]
        if (smallest <= 0).any():
            where = points[int(np.argmin(smallest))]
            place = f" at {np.round(where, 6).tolist()}" if not self.constant else ""
            raise ConfigError(
                f"operator second={self.second} is not elliptic{place}: all eigenvalues must be positive "
                f"(the smallest is {smallest.min():.3g})"
            )
        return second


def Laplacian(dim: int = 2) -> EllipticOperator:
    """Return the Laplace operator in ``dim`` dimensions."""
    return EllipticOperator(tuple(tuple(float(i == j) for j in range(dim)) for i in range(dim)))


def DivAGrad(
    coefficient: Coefficient, dim: int = 2, gradient: tuple[Callable | float | str, ...] | None = None
) -> EllipticOperator:
    """Return div(a grad u) = a Laplace u + grad a . grad u for a smooth scalar a > 0.

    A coefficient that jumps is another problem, with conditions on the interface, which this is not.

    Parameters
    ----------
    coefficient : float, callable or str
        a.
    dim : int
    gradient : tuple, optional
        The derivatives of a. Those of text are symbolic. Those of a function are taken by complex
        steps, exact to round-off for functions made of analytic operations (not of ``abs`` or
        ``maximum``); a function that cannot be differentiated in this way is refused.

    Raises
    ------
    ConfigError
        If a has no usable gradient (when the operator is applied).

    Examples
    --------
    >>> operator = DivAGrad(lambda x, y: 1 + x**2 * y)
    >>> operator.coefficients(np.array([[0.5, 2.0]]))[1].tolist()
    [[2.0, 0.25]]
    """
    if isinstance(coefficient, str):
        coefficient = Expression(coefficient, coordinates(dim))
    if gradient is None:
        gradient = tuple(derivative(coefficient, axis, dim) for axis in range(dim))
    second = tuple(tuple(coefficient if i == j else 0.0 for j in range(dim)) for i in range(dim))
    return EllipticOperator(second, gradient)
