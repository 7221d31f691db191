"""Tensor Legendre polynomials on the unit cell, and all that discontinuous Galerkin methods need to know of them.

The basis of degree p per axis is orthonormal on [0, 1]^d,

    phi_i(x) = prod_a sqrt(2 i_a + 1) P_(i_a)(2 x_a - 1),      n = (p + 1)^d of them, the last axis running fastest.

On a cell K of volume |K| the function u = sum_i c_i phi_i has the mean c_0 and integral |K| sum_i c_i^2 of its square.
Tables are made once for each d and p: all cells of a tree are similar.
"""

import functools
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciml.errors import ConfigError
from sciml.solvers.legendre import gauss, legendre

__all__ = ["ReferenceCell", "reference_cell"]

MAX_ORDER = 12


@dataclass(frozen=True)
class ReferenceCell:
    """The unit cell with the polynomials of one degree.

    Parameters
    ----------
    dim : int
        1 or 2.
    order : int
        Degree p along each axis.

    Raises
    ------
    ConfigError
        If there are no such cells.

    Examples
    --------
    >>> cell = ReferenceCell(2, 1)
    >>> cell.size, np.allclose(cell.values.T * cell.weights @ cell.values, np.eye(4))
    (4, True)
    """

    dim: int
    order: int

    def __post_init__(self) -> None:
        if self.dim not in (1, 2):
            raise ConfigError(f"dim={self.dim}: choose 1 or 2")
        if not 0 <= self.order <= MAX_ORDER:
            raise ConfigError(f"order={self.order}: choose a degree from 0 to {MAX_ORDER}")

    @property
    def size(self) -> int:
        """Number n of polynomials."""
        return (self.order + 1) ** self.dim

    def evaluate(self, points: np.ndarray) -> np.ndarray:
        """Return all polynomials at points of the unit cell, shape (..., d) to (..., n)."""
        return _product([legendre(points[..., axis], self.order)[0] for axis in range(self.dim)])

    def gradients(self, points: np.ndarray) -> np.ndarray:
        """Return their derivatives, shape (..., d) to (..., d, n)."""
        tables = [legendre(points[..., axis], self.order) for axis in range(self.dim)]
        found = [_product([table[axis == a] for a, table in enumerate(tables)]) for axis in range(self.dim)]
        return np.stack(found, axis=-2)

    def rule(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tensor Gauss nodes and weights, ``count`` of them per axis, shapes (Q, d) and (Q,)."""
        nodes, weights = gauss(count)
        points = np.array(list(itertools.product(nodes, repeat=self.dim)))
        return points, np.array(list(itertools.product(weights, repeat=self.dim))).prod(axis=1)

    @cached_property
    def nodes(self) -> np.ndarray:
        """Gauss nodes, p + 1 per axis, shape (n, d)."""
        return self.rule(self.order + 1)[0]

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the nodes, shape (n,)."""
        return self.rule(self.order + 1)[1]

    @cached_property
    def values(self) -> np.ndarray:
        """Polynomials at the nodes, shape (nodes, n)."""
        return self.evaluate(self.nodes)

    @cached_property
    def data_rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Gauss nodes and weights for data and errors, p + 3 per axis, shapes (Q, d) and (Q,)."""
        return self.rule(self.order + 3)

    @cached_property
    def data_values(self) -> np.ndarray:
        """Polynomials there, shape (Q, n)."""
        return self.evaluate(self.data_rule[0])

    @cached_property
    def children_rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Polynomials at those nodes of all children, shape (2^d Q, n), and weights: for integrands with kinks."""
        values = (self.data_values @ self.children).reshape(-1, self.size)
        count = len(self.children)
        return values, np.tile(self.data_rule[1] / count, count)

    @cached_property
    def data_moments(self) -> np.ndarray:
        """Matrix from values there to coefficients of the L2 projection, shape (n, Q)."""
        return (self.data_values * self.data_rule[1][:, None]).T

    @cached_property
    def traces(self) -> np.ndarray:
        """Polynomials at the Gauss nodes of faces, shape (axis, side, part, F, n).

        Side 0 is the lower end of the axis. Of part 0 the nodes are those of the whole side, of 1 and 2 those of its
        lower and upper half, with F = p + 1 (in 1D the side is a point, and F = 1).
        """
        found = []
        for axis, side, part in itertools.product(range(self.dim), range(2), range(3)):
            points = self.face_nodes(axis, side)
            if part and self.dim == 2:
                points[:, 1 - axis] = 0.5 * (points[:, 1 - axis] + part - 1)
            found.append(self.evaluate(points))
        return np.array(found).reshape(self.dim, 2, 3, *found[0].shape)

    @cached_property
    def ends(self) -> np.ndarray:
        """In 1D, polynomials at both ends, shape (n, 2)."""
        return np.ascontiguousarray(self.traces[0, :, 0, 0].T)

    @cached_property
    def side_products(self) -> np.ndarray:
        """Products of polynomials with each other at those nodes, shape (axis side part F, n n)."""
        flat = self.traces.reshape(-1, self.size)
        return (flat[:, :, None] * flat[:, None, :]).reshape(len(flat), -1)

    @cached_property
    def face_products(self) -> np.ndarray:
        """Products of polynomials of two leaves at the nodes of their face, shape (2, kind, F, n n).

        Those of the leaf above with those below, then the other way round. The kind of a face is 5 axis + part, where
        the lower leaf's whole side meets the upper one's (part 0), or its part 1 or 2 does, or part 1 or 2 of the upper
        leaf's side meets the lower one's (3 or 4).
        """
        meetings = (0, 0), (1, 0), (2, 0), (0, 1), (0, 2)
        pairs = [(t[1, below], t[0, above]) for t in self.traces for below, above in meetings]
        return np.array(
            [
                [(a[:, :, None] * b[:, None, :]).reshape(len(a), -1) for a, b in ordered]
                for ordered in ([(upper, lower) for lower, upper in pairs], pairs)
            ]
        )

    @cached_property
    def side_nodes(self) -> np.ndarray:
        """Gauss nodes of all sides, shape (axis, side, F, d)."""
        return np.array([[self.face_nodes(axis, side) for side in range(2)] for axis in range(self.dim)])

    def face_nodes(self, axis: int, side: int) -> np.ndarray:
        """Return the Gauss nodes of a whole side, shape (F, d)."""
        points = np.full((len(self.face_weights), self.dim), float(side))
        if self.dim == 2:
            points[:, 1 - axis] = gauss(self.order + 1)[0]
        return points

    @cached_property
    def stiffness(self) -> np.ndarray:
        """Products w_q (d phi_i / dx_a) phi_j at the nodes, shape (axis, nodes, n n)."""
        slopes = self.gradients(self.nodes) * self.weights[:, None, None]
        products = slopes[..., :, None] * self.values[:, None, None, :]
        return np.moveaxis(products, 1, 0).reshape(self.dim, len(self.nodes), -1)

    @cached_property
    def local_solver(self) -> np.ndarray:
        """In 1D, matrices from the source's coefficients f to u with u' = f, u = 0 where it enters, shape (2, n, n).

        Of the upwind method on one cell of length 1, with the wind to the right and to the left.
        """
        slope = self.stiffness[0].sum(axis=0).reshape(self.size, self.size)
        left, right = self.traces[0, :, 0, 0]
        return np.linalg.inv([np.outer(right, right) - slope, np.outer(left, left) + slope])

    @cached_property
    def face_weights(self) -> np.ndarray:
        """Of the nodes of a face, shape (F,)."""
        return gauss(self.order + 1)[1] if self.dim == 2 else np.ones(1)

    @cached_property
    def children(self) -> np.ndarray:
        """Matrices from the coefficients on a cell to those on its children, shape (2^d, n, n).

        The way back, the L2 projection, is the mean of their transposes.
        """
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=self.dim)))
        inside = self.evaluate(0.5 * (self.nodes + corners[:, None]))
        return (self.values * self.weights[:, None]).T @ inside


@functools.cache
def reference_cell(dim: int, order: int) -> ReferenceCell:
    """Return the one `ReferenceCell` of that kind, with its tables.

    Examples
    --------
    >>> reference_cell(1, 2) is reference_cell(1, 2)
    True
    """
    return ReferenceCell(dim, order)


def _product(factors: list[np.ndarray]) -> np.ndarray:
    if len(factors) == 1:
        return factors[0]
    first, second = factors
    return (first[..., :, None] * second[..., None, :]).reshape(*first.shape[:-1], -1)
