"""Linear second-order elliptic operators, L u = A : grad grad u + b . grad u + c u."""

from dataclasses import dataclass

import numpy as np

from sciml.errors import ConfigError

__all__ = ["EllipticOperator", "Laplacian"]


@dataclass(frozen=True)
class EllipticOperator:
    """The operator sum_ij A_ij d_i d_j u + sum_i b_i d_i u + c u with constant coefficients.

    Parameters
    ----------
    second : tuple of tuples, D x D
        A, symmetric; u_xx + u_xy + 2 u_yy is ((1, 0.5), (0.5, 2)).
    first : tuple, length D, optional
        b, zero by default.
    zeroth : float, optional
        c, zero by default.

    Raises
    ------
    ConfigError
        If A is not symmetric positive definite: the operator is then not elliptic.

    Examples
    --------
    >>> EllipticOperator(((1.0, 0.5), (0.5, 2.0))).dim
    2
    """

    second: tuple[tuple[float, ...], ...]
    first: tuple[float, ...] = ()
    zeroth: float = 0.0

    def __post_init__(self) -> None:
        matrix = np.asarray(self.second, dtype=float)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T):
            raise ConfigError(f"operator second={self.second}: give a symmetric D x D matrix")
        if np.linalg.eigvalsh(matrix)[0] <= 0:
            raise ConfigError(
                f"operator second={self.second} is not elliptic: all eigenvalues must be positive"
            )
        if not self.first:
            object.__setattr__(self, "first", (0.0,) * self.dim)
        if len(self.first) != self.dim:
            raise ConfigError(f"operator first={self.first}: give {self.dim} coefficients")

    @property
    def dim(self) -> int:
        """Number of space dimensions, D."""
        return len(self.second)

    def monomial_coefficients(self, exponents: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """Return L applied, at the origin, to the monomials of xi = x / h.

        Parameters
        ----------
        exponents : ndarray of int, shape (N, D)
            Multi-indices e of the monomials xi^e.
        spacing : ndarray, shape (D,)
            h along each axis.

        Returns
        -------
        ndarray, shape (N,)
            Zero but for |e| <= 2: a derivative at the origin is one Taylor coefficient.
        """
        values = np.zeros(len(exponents))
        for row, e in enumerate(exponents):
            axes = np.repeat(np.arange(self.dim), e)
            if len(axes) == 0:
                values[row] = self.zeroth
            elif len(axes) == 1:
                values[row] = self.first[axes[0]] / spacing[axes[0]]
            elif len(axes) == 2:
                # A_ij and A_ji make 2 A_ij for i != j; the second derivative of xi_i^2 makes 2 A_ii.
                values[row] = 2.0 * self.second[axes[0]][axes[1]] / (spacing[axes[0]] * spacing[axes[1]])
        return values

    def apply_to(self, expression: object, symbols: tuple) -> object:
        """Apply the operator to a sympy expression in the given coordinates."""
        import sympy

        def number(value: float) -> sympy.Expr:
            return sympy.Integer(int(value)) if value == int(value) else sympy.Float(value)

        result = number(self.zeroth) * expression
        for i, x in enumerate(symbols):
            result += number(self.first[i]) * sympy.diff(expression, x)
            for j, y in enumerate(symbols):
                result += number(self.second[i][j]) * sympy.diff(expression, x, y)
        return result


def Laplacian(dim: int = 2) -> EllipticOperator:
    """Return the Laplace operator in ``dim`` dimensions."""
    return EllipticOperator(tuple(tuple(float(i == j) for j in range(dim)) for i in range(dim)))
