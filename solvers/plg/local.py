"""Local polynomial fits around nodes: their data, systems and results, in chunks that fit into memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..boundary import BoundaryCondition
from ..grid import CartesianGrid
from ..polynomials import monomials, multi_indices
from .neighbourhoods import BoundaryNeighbours, Neighbourhoods, too_thin
from .stencil import capped_inverse_distance, fit_polynomial

__all__ = ["LocalFits"]

FIT_ENTRIES = 1 << 23  # matrix entries of the fits handled at a time


@dataclass(frozen=True)
class LocalFits:
    """The least-squares problems of polynomial fits around k nodes.

    Attributes
    ----------
    centres : ndarray of int, shape (k, D)
    offsets : ndarray of int, shape (k, M, D)
        Nodes of each fit, relative to its centre.
    valid : ndarray of bool, shape (k, M)
    boundary : BoundaryNeighbours
        Boundary points of each fit, r of them.
    condition : BoundaryCondition
        Makes rows and data of the boundary points.
    grid : CartesianGrid
    degree : int
    weight_power : float
    counts : dict
        Diagnostics of the choice of nodes.
    """

    centres: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray
    boundary: BoundaryNeighbours
    condition: BoundaryCondition
    grid: CartesianGrid
    degree: int
    weight_power: float
    counts: dict[str, int]

    @classmethod
    def around(
        cls, places: Neighbourhoods, condition: BoundaryCondition, centres: np.ndarray, weight_power: float
    ) -> "LocalFits":
        """Choose nodes and boundary points around inside nodes of shape (k, D)."""
        offsets, valid, counts = places.nodes(centres)
        boundary = places.boundary(centres)
        degree, grid = places.degree, places.grid
        return cls(centres, offsets, valid, boundary, condition, grid, degree, weight_power, counts)

    @property
    def exponents(self) -> np.ndarray:
        """Multi-indices of the monomials, shape (N, D)."""
        return multi_indices(self.degree, self.grid.dim)

    def systems(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Yield, chunk by chunk, which fits, their rows (B, M + r, N) and the weights of these (B, M + r)."""
        h, exponents = np.asarray(self.grid.spacing), self.exponents
        width = self.offsets.shape[1] + self.boundary.valid.shape[1]
        step = max(FIT_ENTRIES // (width * len(exponents)), 1)
        for start in range(0, len(self.centres), step):
            chunk = slice(start, start + step)
            xi_nodes, xi = self.offsets[chunk].astype(float), self.boundary.xi[chunk]
            points = self.boundary.points[self.boundary.column[chunk].ravel()]
            data_rows = self.condition.rows(xi.reshape(-1, self.grid.dim), points, exponents, h)
            rows = np.concatenate(
                [monomials(xi_nodes, exponents), data_rows.reshape(*xi.shape[:2], -1)], axis=1
            )
            weights = capped_inverse_distance(np.concatenate([xi_nodes, xi], axis=1), self.weight_power)
            weights *= np.concatenate([self.valid[chunk], self.boundary.valid[chunk]], axis=1)
            yield chunk, rows, weights

    def check(self, chunk: slice, condition: np.ndarray) -> None:
        """Refuse fits of deficient rank, with condition numbers of infinity.

        Raises
        ------
        StencilError
            That names the place.
        """
        if not np.isfinite(condition).all():
            worst = self.centres[chunk][np.argmax(condition)]
            raise too_thin(self.grid.coordinates(worst), self.degree, self.grid)

    def polynomials(self, values: np.ndarray) -> np.ndarray:
        """Fit grid values, shape grid.shape, and the condition's data; coefficients of shape (k, N)."""
        nodes = (self.centres[:, None, :] + self.offsets).reshape(-1, self.grid.dim)
        nodal = values[tuple(nodes.T)].reshape(self.valid.shape)
        points = self.boundary.points
        data = self.condition.data(points) * self.condition.scale(points, min(self.grid.spacing))
        coefficients = np.empty((len(self.centres), len(self.exponents)))
        for chunk, rows, weights in self.systems():
            right = np.concatenate([nodal[chunk], data[self.boundary.column[chunk]]], axis=1)
            coefficients[chunk], condition = fit_polynomial(rows, weights, right)
            self.check(chunk, condition)
        return coefficients
