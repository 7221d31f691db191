"""Boundary conditions.

A condition is linear in u: B u = g on the boundary. For a local polynomial p(xi) = sum_e c_e xi^e,
xi = (x - x_q) / h, `rows` gives the matrix of B with respect to the c_e; that is all that a method
needs to know about it.
"""

from dataclasses import dataclass

import numpy as np

from .functions import DataFunction, evaluate
from .polynomials import monomials

__all__ = ["Dirichlet"]


@dataclass(frozen=True)
class Dirichlet:
    """u = g on the boundary.

    Parameters
    ----------
    value : float or callable
        g, a constant or a function ``g(x, y)`` of position.

    Examples
    --------
    >>> Dirichlet(lambda x, y: x).data(np.array([[2.0, 0.0]]))
    array([2.])
    """

    value: DataFunction = 0.0

    def data(self, points: np.ndarray) -> np.ndarray:
        """Evaluate g at boundary points, shape (m, D) to (m,)."""
        return evaluate(self.value, points, "Dirichlet data")

    def rows(self, xi: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        """Return B applied to the monomials at scaled positions, shape (..., D) to (..., N)."""
        return monomials(xi, exponents)
