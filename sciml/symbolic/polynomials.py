"""Polynomial maps in sparse form: exponents and coefficients, and exact algebra with them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from sciml.errors import ConfigError

__all__ = ["LIMIT", "PolynomialMap", "monomial_exponents"]

LIMIT = 20_000
"""Most monomials of a polynomial that is expanded, unless another limit is given."""


def monomial_exponents(variables: int, degree: int) -> np.ndarray:
    """Return the exponents of all monomials up to a degree, shape (M, variables), by degree.

    Examples
    --------
    >>> monomial_exponents(2, 2).tolist()
    [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]
    """
    rows: list[tuple[int, ...]] = [()]
    for _ in range(variables):
        rows = [(*row, power) for row in rows for power in range(degree - sum(row) + 1)]
    return np.array(sorted(rows, key=_rank), dtype=np.int64).reshape(-1, variables)


def _rank(row: Sequence[int]) -> tuple[int, ...]:
    """By degree, then with early variables first."""
    return (sum(row), *(-power for power in row))


@dataclass(frozen=True, eq=False)
class PolynomialMap:
    """A map y_k(x) = sum_m c_mk x^(a_m) with a row of exponents a_m for each monomial.

    Parameters
    ----------
    exponents : ndarray of int, shape (M, d)
        Each row once.
    coefficients : ndarray of float64, shape (M, o)
    variables : tuple of str
        Names of the d variables.

    Raises
    ------
    ConfigError
        If shapes do not fit, a row is there twice, or a coefficient is not finite.

    Examples
    --------
    >>> p = PolynomialMap(np.array([[1, 0], [1, 1]]), np.array([[1.56], [-1.12]]), ("x", "y"))
    >>> p(np.array([2.0, 1.0])), p.degree
    (array([0.88]), 2)
    >>> print(p.text(["dx/dt"]))
    dx/dt = 1.56 x - 1.12 x y
    """

    exponents: np.ndarray
    coefficients: np.ndarray
    variables: tuple[str, ...]

    def __post_init__(self) -> None:
        exponents, coefficients = np.asarray(self.exponents), np.asarray(self.coefficients)
        if exponents.ndim != 2 or exponents.shape[1] != len(self.variables):
            raise ConfigError(
                f"exponents of shape {exponents.shape}: expected (monomials, {len(self.variables)})"
            )
        if coefficients.ndim != 2 or len(coefficients) != len(exponents):
            raise ConfigError(
                f"coefficients of shape {coefficients.shape}: expected ({len(exponents)}, outputs)"
            )
        if len(np.unique(exponents, axis=0)) != len(exponents):
            raise ConfigError("exponents: a monomial is there twice; add their coefficients")
        if not np.isfinite(coefficients).all():
            raise ConfigError("coefficients: not all are finite; look at the weights they come from")

    @classmethod
    def linear_map(
        cls, weight: np.ndarray, bias: np.ndarray | None = None, variables: Sequence[str] = ()
    ) -> Self:
        """Return W x + b for W of shape (o, d)."""
        weight = np.asarray(weight, float)
        d = weight.shape[1]
        exponents = np.eye(d, dtype=np.int64)
        coefficients = weight.T
        if bias is not None:
            exponents = np.concatenate([np.zeros((1, d), np.int64), exponents])
            coefficients = np.concatenate([np.asarray(bias, float)[None], coefficients])
        return cls(exponents, coefficients, tuple(variables) or tuple(f"x{i}" for i in range(d)))

    @classmethod
    def merged(cls, exponents: np.ndarray, coefficients: np.ndarray, variables: tuple[str, ...]) -> Self:
        """Return the polynomial of rows of which several may be of one monomial."""
        unique, places = np.unique(exponents, axis=0, return_inverse=True)
        summed = np.zeros((len(unique), coefficients.shape[1]))
        np.add.at(summed, places.ravel(), coefficients)
        order = sorted(range(len(unique)), key=lambda row: _rank(unique[row].tolist()))
        return cls(unique[order], summed[order], variables)

    @property
    def degree(self) -> int:
        """Largest degree of a monomial that has a coefficient."""
        used = (self.coefficients != 0).any(axis=1)
        return int(self.exponents[used].sum(axis=1).max(initial=0))

    def monomials(self, x: np.ndarray) -> np.ndarray:
        """Return the values of all monomials, shape (..., M), at points of shape (..., d)."""
        x = np.asarray(x, float)
        if x.shape[-1:] != (len(self.variables),):
            raise ConfigError(f"x of shape {x.shape}: the last axis must be {len(self.variables)}")
        values = np.ones((*x.shape[:-1], len(self.exponents)))
        for column in range(len(self.variables)):
            powers = self.exponents[:, column]
            if powers.any():
                values *= x[..., column, None] ** powers
        return values

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Evaluate at points of shape (..., d)."""
        return self.monomials(x) @ self.coefficients

    def __add__(self, other: "PolynomialMap") -> "PolynomialMap":
        self._alike(other)
        exponents = np.concatenate([self.exponents, other.exponents])
        return PolynomialMap.merged(
            exponents, np.concatenate([self.coefficients, other.coefficients]), self.variables
        )

    def _alike(self, other: "PolynomialMap") -> None:
        for name, a, b in (
            ("variables", self.variables, other.variables),
            ("outputs", self.coefficients.shape[1], other.coefficients.shape[1]),
        ):
            if a != b:
                raise ConfigError(f"polynomials of {name} {a} and {b}: give two of the same")

    def transformed(self, weight: np.ndarray, bias: np.ndarray | None = None) -> "PolynomialMap":
        """Return W y + b, with W of shape (outputs, o)."""
        changed = replace(self, coefficients=self.coefficients @ np.asarray(weight, float).T)
        if bias is None:
            return changed
        constant = np.zeros((1, len(self.variables)), np.int64)
        return changed + PolynomialMap(constant, np.asarray(bias, float)[None], self.variables)

    def times(self, other: "PolynomialMap", limit: int = LIMIT) -> "PolynomialMap":
        """Return the product, output by output.

        Raises
        ------
        ConfigError
            If it can have more than ``limit`` monomials.
        """
        self._alike(other)
        # Of all rows, also of those without a coefficient.
        degree = sum(int(p.exponents.sum(axis=1).max(initial=0)) for p in (self, other))
        variables = len(self.variables)
        possible = math.comb(variables + degree, variables)
        count = min(possible, len(self.exponents) * len(other.exponents))
        if count > limit:
            raise ConfigError(
                f"a polynomial of degree {degree} in {variables} variables has up to {count} monomials, limit={limit}: "
                "take fewer layers or variables, or raise the limit"
            )
        base = degree + 1
        # Rows as numbers in base degree + 1, which add without a carry.
        weights = [base**column for column in range(variables)]
        keys_a, keys_b = (
            [sum(w * int(a) for w, a in zip(weights, row, strict=True)) for row in part.exponents]
            for part in (self, other)
        )
        found: dict[int, int] = {}
        rows: list[np.ndarray] = []
        places = np.empty((len(keys_a), len(keys_b)), np.int64)
        for i, a in enumerate(keys_a):
            for j, b in enumerate(keys_b):
                place = found.setdefault(a + b, len(found))
                if place == len(rows):
                    rows.append(self.exponents[i] + other.exponents[j])
                places[i, j] = place
        product = np.zeros((len(rows), self.coefficients.shape[1]))
        for i, own in enumerate(places):
            # Within one i all places differ.
            product[own] += self.coefficients[i] * other.coefficients
        exponents = np.array(rows, np.int64).reshape(-1, variables)
        return PolynomialMap.merged(exponents, product, self.variables)

    def rescaled(
        self, inputs: Sequence[float] | np.ndarray, outputs: Sequence[float] | np.ndarray
    ) -> "PolynomialMap":
        """Return the polynomial of X = inputs * x with the values outputs * y: of x^a, c outputs / inputs^a.

        Examples
        --------
        >>> half = PolynomialMap(np.array([[2]]), np.array([[3.0]]), ("x",)).rescaled([2.0], [1.0])
        >>> half.coefficients.tolist()
        [[0.75]]
        """
        scale = np.prod(np.asarray(inputs, float) ** self.exponents, axis=1)
        return replace(self, coefficients=self.coefficients / scale[:, None] * np.asarray(outputs, float))

    def pruned(
        self, tolerance: float, sizes: Sequence[float] | None = None, outputs: Sequence[float] | None = None
    ) -> "PolynomialMap":
        """Return what is left when small terms are set to zero, and monomials without any are left out.

        Parameters
        ----------
        tolerance : float
            Terms with |c| sizes^a <= tolerance outputs go.
        sizes, outputs : sequence of float, optional
            Typical sizes of the variables and of the outputs, 1 by default.
        """
        size = np.ones(len(self.variables)) if sizes is None else np.asarray(sizes, float)
        limits = tolerance * (1.0 if outputs is None else np.asarray(outputs, float))
        contribution = abs(self.coefficients) * np.prod(size**self.exponents, axis=1)[:, None]
        coefficients = np.where(contribution > limits, self.coefficients, 0.0)
        kept = (coefficients != 0).any(axis=1)
        return replace(self, exponents=self.exponents[kept], coefficients=coefficients[kept])

    def terms(self, output: int = 0) -> dict[str, float]:
        """Return the coefficients of an output by monomial, those that are not zero.

        Examples
        --------
        >>> PolynomialMap(np.array([[0, 0], [1, 2]]), np.array([[1.0], [2.0]]), ("x", "y")).terms()
        {'1': 1.0, 'x y^2': 2.0}
        """
        return {
            self.monomial_name(row): float(c) for row, c in enumerate(self.coefficients[:, output]) if c != 0
        }

    def monomial_name(self, row: int) -> str:
        """Return a monomial as text."""
        return " ".join(_powers(self.variables, self.exponents[row], "^{}")) or "1"

    def text(self, names: Sequence[str], digits: int = 6, errors: np.ndarray | None = None) -> str:
        """Return one line ``name = formula`` for each output.

        Parameters
        ----------
        names : sequence of str
        digits : int
            Significant ones of the coefficients.
        errors : ndarray, shape (M, o), optional
            Of the coefficients; shown in brackets, in units of the last digit.
        """
        return "\n".join(
            f"{name} = {self._formula(output, digits, errors, '^{}', '')}"
            for output, name in enumerate(names)
        )

    def latex(self, names: Sequence[str], digits: int = 6) -> str:
        r"""Return an aligned LaTeX formula for each output.

        Examples
        --------
        >>> print(PolynomialMap(np.array([[2]]), np.array([[-0.5]]), ("x",)).latex([r"\dot x"]))
        \dot x &= - 0.5\, x^{2}
        """
        return " \\\\\n".join(
            f"{name} &= {_braced(self._formula(output, digits, None, '^{{{}}}', chr(92) + ','))}"
            for output, name in enumerate(names)
        )

    def _formula(self, output: int, digits: int, errors: np.ndarray | None, power: str, between: str) -> str:
        words: list[str] = []
        for row, c in enumerate(self.coefficients[:, output].tolist()):
            if c == 0:
                continue
            factors = _powers(self.variables, self.exponents[row], power)
            error = 0.0 if errors is None else float(errors[row, output])
            number = _with_error(abs(c), error, digits)
            sign = "-" if c < 0 else "+"
            if words or c < 0:
                words.append(sign)
            words.append(f"{between} ".join([number, " ".join(factors)]) if factors else number)
        return " ".join(words) or "0"

    def sympy(self) -> list[Any]:
        """Return the outputs as sympy expressions in symbols of the variables' names."""
        import sympy

        symbols = [sympy.Symbol(name) for name in self.variables]
        monomials = [
            sympy.Mul(*(symbol ** int(power) for symbol, power in zip(symbols, row, strict=True)))
            for row in self.exponents
        ]
        return [
            sympy.Add(*(float(c) * m for c, m in zip(column, monomials, strict=True) if c != 0))
            for column in self.coefficients.T
        ]


def _braced(formula: str) -> str:
    """Derivatives' letters together: u_{xx}."""
    return re.sub(r"_([A-Za-z0-9]{2,})", r"_{\1}", formula)


def _powers(names: Sequence[str], row: np.ndarray, power: str) -> list[str]:
    return [
        name + (power.format(n) if n > 1 else "") for name, n in zip(names, row.tolist(), strict=True) if n
    ]


def _with_error(value: float, error: float, digits: int) -> str:
    """1.5600(12), or the value alone."""
    if not (0 < error < math.inf):
        return f"{value:.{digits}g}"
    # Two digits of the error, rounded.
    places = 1 - math.floor(math.log10(float(f"{error:.1e}")))
    shown = round(error * 10**places) if places >= 0 else round(error)
    if places < 0 or places > 15:
        return f"{value:.{digits}g} +- {error:.2g}"
    return f"{value:.{places}f}({shown})"
