"""What differential equation a stencil stands for: Taylor's expansion of its neighbours."""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from sciml.errors import ConfigError

from .polynomials import PolynomialMap

__all__ = ["differential_form"]


def differential_form(stencil: PolynomialMap, spacing: Sequence[float], order: int = 4) -> PolynomialMap:
    """Return a stencil as a polynomial in a field and its derivatives (its modified equation).

    Every value u[k] becomes sum_a (k h)^a / a! d^a u; terms with more than ``order`` derivatives in all are left out.
    On smooth data values of neighbours are nearly multiples of each other, and many stencils do the same: their
    differential forms agree where their coefficients do not.

    Parameters
    ----------
    stencil : PolynomialMap
        With variables such as "u[-1]", "u[0]" or "u[0,1]", as `expand` names them behind a shift.
    spacing : sequence of float
        h of each axis.
    order : int

    Raises
    ------
    ConfigError
        If variables are no values of cells, or the spacing has another number of axes.

    Examples
    --------
    >>> laplacian = PolynomialMap(np.eye(3, dtype=int), np.array([[4.0], [-8.0], [4.0]]), ("u[-1]", "u[0]", "u[1]"))
    >>> print(differential_form(laplacian, [0.5]).pruned(1e-12).text(["du/dt"], 3))
    du/dt = 1 u_xx + 0.0208 u_xxxx
    """
    places = []
    for name in stencil.variables:
        match = re.fullmatch(r"(.+)\[(-?\d+(?:,-?\d+)*)\]", name)
        if match is None:
            raise ConfigError(f"variable {name!r}: a stencil's are values of cells, such as 'u[-1]'")
        places.append((match[1], tuple(int(k) for k in match[2].split(","))))
    axes = len(places[0][1])
    if len(spacing) != axes:
        raise ConfigError(f"spacing={list(spacing)}: the stencil has {axes} axes")
    fields = list(dict.fromkeys(field for field, _ in places))
    orders = sorted(
        (a for a in itertools.product(range(order + 1), repeat=axes) if sum(a) <= order),
        key=lambda a: (sum(a), *(-n for n in a)),
    )
    names = tuple(field + _suffix(a) for field in fields for a in orders)
    weight = np.zeros((len(places), len(names)))
    for row, (field, cell) in enumerate(places):
        start = fields.index(field) * len(orders)
        for column, a in enumerate(orders, start):
            factors = ((k * h) ** n / math.factorial(n) for k, h, n in zip(cell, spacing, a, strict=True))
            weight[row, column] = math.prod(factors)
    derivatives = np.array([sum(a) for _ in fields for a in orders])
    linear = [PolynomialMap.linear_map(row[None], None, names).pruned(0.0) for row in weight]
    one = PolynomialMap(np.zeros((1, len(names)), np.int64), np.ones((1, 1)), names)
    total: PolynomialMap | None = None
    for exponents, coefficients in zip(stencil.exponents, stencil.coefficients, strict=True):
        product = one
        for place in np.repeat(np.arange(len(places)), exponents):
            product = _truncated(product.times(linear[place]), derivatives, order)
        term = product.transformed(coefficients[:, None])
        total = term if total is None else total + term
    return one.transformed(np.zeros((stencil.coefficients.shape[1], 1))) if total is None else total


def _truncated(p: PolynomialMap, derivatives: np.ndarray, order: int) -> PolynomialMap:
    kept = p.exponents @ derivatives <= order
    return PolynomialMap(p.exponents[kept], p.coefficients[kept], p.variables)


def _suffix(orders: tuple[int, ...]) -> str:
    letters = "".join(axis * n for axis, n in zip("xyz", orders, strict=False))
    return f"_{letters}" if letters else ""
